use super::*;
use crate::filter::{Comparison, Test};
use crate::sample::ThingRow;
use foldstream_core::{ReadModel, Value};

const TABLE: &Table = &ThingRow::TABLE;

fn parse(raw: &str) -> Result<ListQuery, Vec<FieldError>> {
    ListQuery::parse(TABLE, raw)
}
fn first_test(raw: &str) -> Test {
    parse(raw).expect("valid").filters.remove(0).test
}
fn names(columns: &[&ColumnDef]) -> Vec<&'static str> {
    columns.iter().map(|c| c.name).collect()
}

#[test]
fn nothing_said_is_the_first_fifty_by_key() {
    let query = parse("").expect("valid");
    assert_eq!((query.limit, query.filters.len()), (50, 0));
    let order: Vec<_> = query.order.iter().map(|t| (t.column.name, t.descending)).collect();
    assert_eq!(order, [("name", false), ("number", false)]);
    assert!(names(&query.select).contains(&"extra") && !names(&query.select).contains(&"secret"));
}

#[test]
fn filters_are_read_by_type() {
    let text = |text: &str| Value::Text(text.to_owned().into());
    assert_eq!(first_test("number=lt.5"), Test::Compare(Comparison::Less, Value::Int4(5)));
    assert_eq!(
        first_test("count=gte.-5"),
        Test::Compare(Comparison::GreaterOrEqual, Value::Int8(-5))
    );
    assert_eq!(first_test("name=eq."), Test::Compare(Comparison::Equal, text("")));
    assert_eq!(first_test("name=eq.a.b,(c)"), Test::Compare(Comparison::Equal, text("a.b,(c)")));
    assert_eq!(first_test("shape=is.null"), Test::Null);
    assert_eq!(first_test("shape=is.not_null"), Test::NotNull);
    assert_eq!(first_test("name=like.50%25_*b*"), Test::Like("50\\%\\_%b%".to_owned()));
    let list = first_test(r#"name=in.(a,"b,c","d\"\\e","")"#);
    assert_eq!(list, Test::In(vec![text("a"), text("b,c"), text("d\"\\e"), text("")]));
    let query =
        parse("price=not.eq.1.5&price=gt.0&seen_at=lt.2020-01-01T00:00:00Z").expect("valid");
    assert_eq!(query.filters.len(), 3);
    assert!(query.filters[0].negated && !query.filters[1].negated);
}

#[test]
fn orders_are_completed_by_the_key_in_the_same_direction() {
    let query = parse("order=price.desc.nullsfirst,number").expect("valid");
    let order: Vec<_> =
        query.order.iter().map(|t| (t.column.name, t.descending, t.nulls_first)).collect();
    assert_eq!(order, [("price", true, true), ("number", false, false), ("name", false, false)]);
    let query = parse("order=made_on.desc&select=name").expect("valid");
    assert!(query.order.iter().all(|term| term.descending && term.nulls_first));
    assert_eq!(names(&query.select), ["name"]);
}

#[test]
fn what_is_wrong_is_named_with_what_is_allowed() {
    let many_values = format!("name=in.({})", vec!["a"; 201].join(","));
    let many_filters = vec!["count=gt.1"; 21].join("&");
    let cases: Vec<(&str, &str, &str, &str)> = vec![
        ("nope=eq.1", "nope", "unknown-parameter", "price"),
        ("secret=eq.1", "secret", "unknown-parameter", "price"),
        ("extra=eq.1", "extra", "not-filterable", "price"),
        ("name", "name", "unknown-operator", "gte"),
        ("name=x", "name", "unknown-operator", "gte"),
        ("name=similar.x", "name", "unknown-operator", "gte"),
        ("name=not.not.eq.x", "name", "unknown-operator", "gte"),
        ("number=eq.2147483648", "number", "wrong-type", "32-bit"),
        ("count=eq.1e3", "count", "wrong-type", "64-bit"),
        ("sold=eq.yes", "sold", "wrong-type", "true"),
        ("price=eq.1.23456", "price", "too-many-decimals", "4"),
        ("price=eq.NaN", "price", "not-an-amount", "decimal"),
        ("made_on=eq.2020-13-01", "made_on", "wrong-type", "date"),
        ("seen_at=eq.2020-01-01", "seen_at", "not-an-instant", "RFC 3339"),
        ("tag=eq.1", "tag", "wrong-type", "UUID"),
        ("look=eq.flat", "look", "unknown-value", "round"),
        ("look=in.(round,flat)", "look", "unknown-value", "square"),
        ("name=is.nil", "name", "wrong-operand", "not_null"),
        ("name=in.a", "name", "bad-list", "brackets"),
        ("name=in.()", "name", "bad-list", "empty"),
        ("name=in.(a,,b)", "name", "bad-list", "empty"),
        ("name=in.(\"a)", "name", "bad-list", "closed"),
        ("name=in.(\"a\"b)", "name", "bad-list", "comma"),
        ("name=like.*a", "name", "leading-wildcard", "*"),
        ("name=like.a*b*c*d*", "name", "too-many-wildcards", "3"),
        ("count=like.1*", "count", "wrong-operand", "text"),
        ("order=nope", "order", "unknown-column", "price"),
        ("order=extra", "order", "unknown-column", "price"),
        ("order=", "order", "unknown-column", "price"),
        ("order=name,name.desc", "order", "duplicate-column", "name"),
        ("order=name.up", "order", "bad-order", "desc"),
        ("order=name.desc.nullsmiddle", "order", "bad-order", "nullslast"),
        ("order=name.desc.nullsfirst.x", "order", "bad-order", "nullslast"),
        ("select=", "select", "unknown-column", "price"),
        ("select=secret", "select", "unknown-column", "price"),
        ("select=*", "select", "unknown-column", "price"),
        ("select=name,name", "select", "duplicate-column", "name"),
        ("limit=0", "limit", "out-of-range", "500"),
        ("limit=501", "limit", "out-of-range", "500"),
        ("limit=-1", "limit", "out-of-range", "500"),
        ("limit=1e3", "limit", "out-of-range", "500"),
        ("limit=+5", "limit", "out-of-range", "500"),
        ("limit=", "limit", "out-of-range", "500"),
        ("limit=1&limit=1", "limit", "duplicate", "once"),
        ("cursor=a&cursor=b", "cursor", "duplicate", "once"),
        ("name=eq.%zz", "name", "bad-encoding", "hex"),
        ("name=eq.%ff", "name", "bad-encoding", "UTF-8"),
        ("name=eq.%00", "name", "nul", "U+0000"),
        (&many_values, "name", "too-many-values", "200"),
        (&many_filters, "query", "too-many-filters", "20"),
    ];
    for (raw, pointer, code, part) in cases {
        let errors = parse(raw).expect_err(raw);
        let found = (errors[0].pointer.as_str(), errors[0].code.as_ref());
        assert_eq!(found, (pointer, code), "{raw}");
        assert!(errors[0].detail.contains(part), "{raw}: {}", errors[0].detail);
    }
    assert_eq!(parse("limit=0&nope=1&order=x").expect_err("three faults").len(), 3);
}

#[test]
fn a_query_is_the_same_whatever_the_order_of_its_parameters_and_the_page() {
    let of = |raw: &str| parse(raw).expect("valid").fingerprint;
    assert_eq!(of("count=gt.1&sold=eq.true"), of("sold=eq.true&count=gt.1&limit=3&cursor=x"));
    assert_ne!(of("count=gt.1"), of("count=gt.2"));
    assert_ne!(of("select=name"), of(""));
    let link = parse("name=eq.a%20%26b&cursor=x&limit=2").expect("valid").link;
    assert_eq!(link, "name=eq.a%20%26b&limit=2&");
}
