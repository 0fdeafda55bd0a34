//! SQL text of the statements that take many rows, one array per column.

use crate::place::{Place, quoted};
use foldstream_core::{ColumnDef, ColumnType, Merge, Table};

/// The type of a column in Postgres.
pub(crate) fn type_name(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Bool => "bool",
        ColumnType::Int4 => "int4",
        ColumnType::Int8 => "int8",
        ColumnType::Numeric => "numeric(28,4)",
        ColumnType::Date => "date",
        ColumnType::Timestamptz => "timestamptz",
        ColumnType::Text => "text",
        ColumnType::Uuid => "uuid",
        ColumnType::Jsonb => "jsonb",
    }
}

/// `"a", "b"`
pub(crate) fn names<'a>(columns: impl Iterator<Item = &'a ColumnDef>) -> String {
    columns.map(|c| quoted(c.name)).collect::<Vec<_>>().join(", ")
}

/// `unnest($1::text[], $2::int8[])`
fn unnest<'a>(columns: impl Iterator<Item = &'a ColumnDef>) -> String {
    let bare = |c: &ColumnDef| type_name(c.column_type).split('(').next().unwrap_or_default();
    let arrays: Vec<String> =
        columns.enumerate().map(|(i, c)| format!("${}::{}[]", i + 1, bare(c))).collect();
    format!("unnest({})", arrays.join(", "))
}

pub(crate) fn copy(place: &Place) -> String {
    let columns = names(place.table.columns.iter());
    format!("copy {} ({columns}) from stdin (format binary)", place.qualified())
}

pub(crate) fn load(place: &Place) -> String {
    let table = place.table;
    let keys = names(table.keys());
    format!(
        "select {} from {} where ({keys}) in (select * from {}) order by {keys} for update",
        names(table.columns.iter()),
        place.qualified(),
        unnest(table.keys())
    )
}

pub(crate) fn delete(place: &Place) -> String {
    let table = place.table;
    format!(
        "delete from {} where ({}) in (select * from {})",
        place.qualified(),
        names(table.keys()),
        unnest(table.keys())
    )
}

/// Inserts rows; where the key exists, columns are replaced or merged as the table says. The rows
/// come in key order, which is the order in which they are locked.
pub(crate) fn upsert(place: &Place) -> String {
    let table = place.table;
    let set: Vec<String> =
        table.rest().map(|c| format!("{} = {}", quoted(c.name), merged(c, table))).collect();
    let action =
        if set.is_empty() { "nothing".into() } else { format!("update set {}", set.join(",\n  ")) };
    format!(
        "insert into {} as own ({}) select * from {}\non conflict ({}) do {action}",
        place.qualified(),
        names(table.columns.iter()),
        unnest(table.columns.iter()),
        names(table.keys())
    )
}

/// The SQL half of `foldstream_core::merge`.
fn merged(column: &ColumnDef, table: &Table) -> String {
    let (own, new) =
        (format!("own.{}", quoted(column.name)), format!("excluded.{}", quoted(column.name)));
    match column.merge {
        Merge::Key | Merge::Replace => new,
        Merge::Sum if column.nullable => format!("coalesce({own} + {new}, {own}, {new})"),
        Merge::Sum => format!("{own} + {new}"),
        Merge::Min => format!("least({own}, {new})"),
        Merge::Max => format!("greatest({own}, {new})"),
        Merge::Latest(by) => latest(column, by, table, &own, &new),
    }
}

/// Column by column, null first: `(a, b) > (a, b)` would answer null as soon as one is null.
fn latest(column: &ColumnDef, by: &[&str], table: &Table, own: &str, new: &str) -> String {
    let nullable = |name: &str| table.columns.iter().any(|c| c.name == name && c.nullable);
    let compare = |name: &&str| {
        let quoted = quoted(name);
        let (own_by, new_by) = (format!("own.{quoted}"), format!("excluded.{quoted}"));
        let greater = match nullable(name) {
            true => format!("{new_by} is not null and ({own_by} is null or {new_by} > {own_by})"),
            false => format!("{new_by} > {own_by}"),
        };
        format!(
            "when {new_by} is distinct from {own_by} \
             then case when {greater} then {new} else {own} end"
        )
    };
    let cases: Vec<String> = by.iter().map(compare).collect();
    let tie =
        if by.contains(&column.name) { own.to_owned() } else { format!("greatest({own}, {new})") };
    format!("case {} else {tie} end", cases.join(" "))
}
