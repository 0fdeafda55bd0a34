//! DDL of one build: schema, table, comments, primary key, indexes, views.

use crate::place::{Place, literal, quoted};
use crate::statements::{names, type_name};
use foldstream_core::{ColumnDef, ColumnType, Merge};

/// Schema and table, without primary key and indexes: a rebuild adds those after COPY.
pub fn create(place: &Place) -> Vec<String> {
    let columns: Vec<String> = place.table.columns.iter().map(column).collect();
    vec![
        format!("create schema {}", quoted(&place.schema())),
        format!("create table {} (\n  {}\n)", place.qualified(), columns.join(",\n  ")),
    ]
}

/// The primary key.
pub fn primary_key(place: &Place) -> String {
    format!("alter table {} add primary key ({})", place.qualified(), names(place.table.keys()))
}

/// One index per column to filter by, with the key behind it: lists and their cursors follow it.
/// Merged columns change with every event and get none: the index would cost each write more than
/// it saves the reads of a table of sums. Made only where it is missing.
pub fn indexes(place: &Place) -> Vec<String> {
    let first = place.table.keys().next().map(|c| c.name);
    let steady = |c: &&ColumnDef| matches!(c.merge, Merge::Key | Merge::Replace);
    let filtered = place.table.columns.iter().filter(|c| c.filter && Some(c.name) != first);
    let wanted = filtered.filter(steady);
    let index = |column: &ColumnDef| {
        let keys: Vec<String> = place
            .table
            .keys()
            .filter(|key| key.name != column.name)
            .map(|key| quoted(key.name))
            .collect();
        let rest = if keys.is_empty() { String::new() } else { format!(", {}", keys.join(", ")) };
        format!(
            "create index if not exists {} on {} ({}{rest})",
            quoted(&format!("by_{}", column.name)),
            place.qualified(),
            quoted(column.name),
        )
    };
    wanted.map(index).collect()
}

/// Comments of schema, table and columns.
pub fn comments(place: &Place) -> Vec<String> {
    let (table, name) = (place.table, place.qualified());
    let about = format!("Read model {}, build {}.", table.name, place.build);
    let mut comments = vec![
        format!("comment on schema {} is {}", quoted(&place.schema()), literal(&about)),
        format!("comment on table {name} is {}", literal(table.doc)),
    ];
    comments.extend(table.columns.iter().map(|c| comment(&name, c)));
    comments
}

/// The views that show this build, with their comments, in place of those there are.
pub fn views(place: &Place) -> Vec<String> {
    let table = place.table;
    let mut statements = Vec::new();
    for schema in ["read", "analytics"] {
        let view = format!("{schema}.{}", quoted(table.name));
        let shown = names(table.shown());
        statements.push(format!("drop view if exists {view}"));
        statements.push(format!("create view {view} as select {shown} from {}", place.qualified()));
        statements.extend(view_comments(place, schema));
    }
    statements
}

/// Comments of the views that are there.
pub(crate) fn view_comments(place: &Place, schema: &str) -> Vec<String> {
    let view = format!("{schema}.{}", quoted(place.table.name));
    let mut comments = vec![format!("comment on view {view} is {}", literal(place.table.doc))];
    comments.extend(place.table.shown().map(|c| comment(&view, c)));
    comments
}

fn comment(relation: &str, column: &ColumnDef) -> String {
    // A hidden column may have no doc; an empty comment is none.
    let doc = literal(column.doc);
    format!("comment on column {relation}.{} is {doc}", quoted(column.name))
}

fn column(column: &ColumnDef) -> String {
    let name = quoted(column.name);
    // Order and comparison of text as in Rust: byte by byte, whatever the database's collation.
    let collation = if column.column_type == ColumnType::Text { " collate \"C\"" } else { "" };
    let null = if column.nullable { "" } else { " not null" };
    let labels: Vec<String> = column.labels.iter().map(|label| literal(label)).collect();
    let check = match labels.is_empty() {
        true => String::new(),
        false => format!(" check ({name} in ({}))", labels.join(", ")),
    };
    format!("{name} {}{collation}{null}{check}", type_name(column.column_type))
}
