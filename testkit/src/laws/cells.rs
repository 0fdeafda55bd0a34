//! Random rows of any table, and rows in a form that can be compared.

use foldstream_core::{
    Cells, ColumnDef, ColumnType, Date, Merge, Money, ReadModel, Table, Timestamp, Uuid, Value,
};
use proptest::prelude::*;
use proptest::sample::select;
use std::borrow::Cow;

/// Rows by their cells, in key order.
pub(super) type Held = Vec<Vec<Value<'static>>>;

/// The rows, with JSON in one spelling: Postgres orders the members of an object anew.
pub(super) fn held(cells: &dyn Cells, columns: usize) -> Held {
    let row = |row| (0..columns).map(|column| plain(cells.value(row, column))).collect();
    (0..cells.rows()).map(row).collect()
}
fn plain(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Jsonb(text) => {
            let json = serde_json::from_str::<serde_json::Value>(&text);
            Value::Jsonb(Cow::Owned(json.map_or_else(|_| text.into_owned(), |v| v.to_string())))
        }
        other => other.into_owned(),
    }
}

/// Rows with few different keys and many ties.
pub(super) fn random_rows<R: ReadModel>(
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<R>> {
    let table = const { &R::TABLE };
    let cells: Vec<_> = table.columns.iter().map(|column| tied(table, column)).collect();
    let row = cells.prop_map(|cells| {
        R::from_values(cells).expect("cells are made from the columns' own types")
    });
    prop::collection::vec(row, count)
}

/// What rows are merged and ordered by is mostly the same, so that they meet and ties are common.
fn tied(table: &Table, column: &'static ColumnDef) -> BoxedStrategy<Value<'static>> {
    let by = |other: &ColumnDef| match other.merge {
        Merge::Latest(by) => by.contains(&column.name),
        Merge::Key | Merge::Replace | Merge::Sum | Merge::Min | Merge::Max => false,
    };
    if column.merge != Merge::Key && !table.columns.iter().any(by) {
        return cell(column);
    }
    let usual = match column.column_type {
        ColumnType::Bool => Value::Bool(false),
        ColumnType::Int4 => Value::Int4(0),
        ColumnType::Int8 => Value::Int8(0),
        ColumnType::Numeric => amount(0),
        ColumnType::Date => day(0),
        ColumnType::Timestamptz => instant(0),
        ColumnType::Text => Value::Text(column.labels.first().copied().unwrap_or("a").into()),
        ColumnType::Uuid => Value::Uuid(Uuid::nil()),
        ColumnType::Jsonb => Value::Jsonb("[]".into()),
    };
    prop_oneof![4 => Just(usual), 1 => cell(column)].boxed()
}

fn cell(column: &'static ColumnDef) -> BoxedStrategy<Value<'static>> {
    const WIDE: i64 = 1_000_000_000_000;
    let small_or = |wide: i64| prop_oneof![-2..3_i64, -wide..wide];
    let value = match column.column_type {
        ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Int4 => (-2..3_i32).prop_map(Value::Int4).boxed(),
        ColumnType::Int8 => small_or(WIDE).prop_map(Value::Int8).boxed(),
        ColumnType::Numeric => small_or(WIDE).prop_map(amount).boxed(),
        ColumnType::Date => (0..3_u64).prop_map(day).boxed(),
        ColumnType::Timestamptz => small_or(3_000_000_000_000_000).prop_map(instant).boxed(),
        ColumnType::Text if !column.labels.is_empty() => {
            select(column.labels).prop_map(|text| Value::Text(text.into())).boxed()
        }
        ColumnType::Text if column.merge == Merge::Key => {
            select(&["a", "B", " "][..]).prop_map(|text| Value::Text(text.into())).boxed()
        }
        ColumnType::Text => text().prop_map(|text| Value::Text(Cow::Owned(text))).boxed(),
        ColumnType::Uuid => {
            (0..3_u128).prop_map(|v| Value::Uuid(Uuid::from_u128(v << 120))).boxed()
        }
        ColumnType::Jsonb => Just(Value::Jsonb("[]".into())).boxed(),
    };
    if column.nullable { prop_oneof![1 => Just(Value::Null), 2 => value].boxed() } else { value }
}

/// Texts whose order differs between bytes, locales and normal forms.
fn text() -> impl Strategy<Value = String> {
    let known = ["", "a", "B", "b", "Z", "é", "e\u{301}", "a-b", "ab", "\u{ffff}", "😀"];
    prop_oneof![prop::sample::select(known.map(str::to_owned).to_vec()), "[^\\x00]{0,4}"]
}
fn amount(amount: i64) -> Value<'static> {
    let amount = Money::from_ten_thousandths(i128::from(amount));
    Value::Numeric(amount.expect("far below the limit"))
}
fn day(day: u64) -> Value<'static> {
    let first = Date::from_ymd_opt(1999, 12, 31).expect("a day");
    Value::Date(first + chrono::Days::new(day))
}
fn instant(micros: i64) -> Value<'static> {
    Value::Timestamptz(Timestamp::from_micros(micros).expect("within a hundred years of 1970"))
}
