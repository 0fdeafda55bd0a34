use super::*;
use crate::list_query::ListQuery;
use crate::sample::ThingRow;
use foldstream_core::{Money, ReadModel, Uuid};
use proptest::prelude::*;

const TABLE: &Table = &ThingRow::TABLE;
const DAY: Duration = Duration::from_hours(24);
const ORDER: &str = "order=shape,price,made_on,seen_at,count,sold,tag,number";

fn query(raw: &str) -> ListQuery {
    ListQuery::parse(TABLE, raw).expect("a test query")
}
fn of(query: &ListQuery) -> Of<'_> {
    Of { table: TABLE, order: &query.order, fingerprint: &query.fingerprint }
}
fn cursors() -> Cursors {
    Cursors::new(&[7; 32], DAY)
}
fn simple() -> Cursor {
    let values = vec![Value::Text("a\"é".into()), Value::Int4(-1)];
    Cursor { values, backward: true, inclusive: false }
}

#[test]
fn a_changed_cursor_is_refused_whatever_changed() {
    let query = query("");
    let text = cursors().encode(of(&query), &simple(), 1_000);
    assert_eq!(cursors().decode(of(&query), &text, 1_000), Ok(simple()));
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        let found = cursors().decode(of(&query), &changed, 1_000);
        assert_eq!(found, Err(BadCursor::Forged), "byte {at}");
    }
    for garbage in ["", "x", "AAAA", "%", "é", &"A".repeat(5_000), &text[1..], &format!("{text}A")]
    {
        assert_eq!(cursors().decode(of(&query), garbage, 0), Err(BadCursor::Forged), "{garbage}");
    }
    let other_secret = Cursors::new(&[8; 32], DAY);
    assert_eq!(other_secret.decode(of(&query), &text, 0), Err(BadCursor::Forged));
}

#[test]
fn a_cursor_is_of_its_query_and_ends() {
    let (own, other) = (query("count=gt.1"), query("count=gt.2"));
    let text = cursors().encode(of(&own), &simple(), 1_000);
    assert_eq!(cursors().decode(of(&other), &text, 0), Err(BadCursor::OtherQuery));
    let day = DAY.as_secs();
    assert_eq!(cursors().decode(of(&own), &text, 1_000 + day), Ok(simple()));
    assert_eq!(cursors().decode(of(&own), &text, 1_000 + day + 3_600), Err(BadCursor::Expired));
    // The same page has the same cursors for a while, so that its ETag stands.
    assert_eq!(text, cursors().encode(of(&own), &simple(), 1_900));
}

fn value(column_type: ColumnType) -> BoxedStrategy<Value<'static>> {
    match column_type {
        ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Int4 => any::<i32>().prop_map(Value::Int4).boxed(),
        ColumnType::Int8 => any::<i64>().prop_map(Value::Int8).boxed(),
        ColumnType::Numeric => any::<i64>()
            .prop_map(|n| Value::Numeric(Money::from_ten_thousandths(n.into()).expect("small")))
            .boxed(),
        ColumnType::Date => (-1_000_000..1_000_000)
            .prop_map(|n| Value::Date(NaiveDate::from_num_days_from_ce_opt(n).expect("near")))
            .boxed(),
        ColumnType::Timestamptz => (0..1_i64 << 52)
            .prop_map(|n| Value::Timestamptz(Timestamp::from_micros(n).expect("near")))
            .boxed(),
        ColumnType::Text => "[^\0]{0,20}".prop_map(|t| Value::Text(t.into())).boxed(),
        ColumnType::Uuid => any::<u128>().prop_map(|n| Value::Uuid(Uuid::from_u128(n))).boxed(),
        ColumnType::Jsonb => Just(Value::Null).boxed(),
    }
}

fn any_values() -> impl Strategy<Value = Vec<Value<'static>>> {
    let order = query(ORDER).order;
    let cells = order
        .iter()
        .map(|term| prop_oneof![1 => Just(Value::Null), 4 => value(term.column.column_type)]);
    cells.collect::<Vec<_>>()
}

proptest! {
    #[test]
    fn every_value_comes_back(values in any_values(), backward: bool, inclusive: bool) {
        let query = query(ORDER);
        let cursor = Cursor { values, backward, inclusive };
        let text = cursors().encode(of(&query), &cursor, 5);
        prop_assert_eq!(cursors().decode(of(&query), &text, 5), Ok(cursor));
    }
    #[test]
    fn no_text_makes_it_panic(text in "[A-Za-z0-9_-]{0,100}") {
        prop_assert!(cursors().decode(of(&query("")), &text, 5).is_err());
    }
}
