//! Pages, compared with a sort in memory.

use crate::harness::{Answer, Api, thing};
use crate::sample::{Shape, ThingRow};
use foldstream_core::{Date, Money, ReadModel, Shown, Timestamp, Uuid, Value};
use foldstream_testkit::eventually;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::cmp::Ordering;
use std::time::Duration;

/// Few different values, so that there are many equal ones.
fn any_row() -> impl Strategy<Value = ThingRow> {
    let shape = proptest::option::of(prop_oneof!["[a-c]", Just("é".to_owned())]);
    let price = proptest::option::of(-2_i128..3);
    let seen_at = proptest::option::of(0_i64..4);
    let tag = proptest::option::of(0_u128..3);
    let key = ("[a-cA Z%é]{1,2}", 0..6);
    (key, shape, price, seen_at, tag, 0..4_u64, -2..3_i64, any::<bool>(), any::<bool>()).prop_map(
        |((name, number), shape, price, seen_at, tag, day, count, sold, round)| ThingRow {
            shape,
            price: price.map(|p| Money::from_ten_thousandths(p * 5_001).expect("small")),
            made_on: Date::from_ymd_opt(2010, 12, 1).expect("a date") + chrono::Days::new(day),
            seen_at: seen_at.map(|s| Timestamp::from_micros(s * 1_000_001).expect("near")),
            tag: tag.map(Uuid::from_u128),
            count,
            sold,
            look: if round { Shape::Round } else { Shape::Square },
            ..thing(&name, number)
        },
    )
}

const COLUMNS: [&str; 10] =
    ["name", "number", "shape", "price", "made_on", "seen_at", "count", "sold", "tag", "look"];

#[derive(Debug, Clone)]
struct Term(&'static str, bool, Option<bool>);

/// Some columns, each with a direction and perhaps a word about nulls.
fn any_order() -> impl Strategy<Value = Vec<Term>> {
    let columns = proptest::sample::subsequence(COLUMNS.to_vec(), 0..4).prop_shuffle();
    (columns, any::<[bool; 4]>(), any::<[Option<bool>; 4]>()).prop_map(|(columns, desc, nulls)| {
        let terms = columns.into_iter().zip(desc).zip(nulls);
        terms.map(|((name, descending), nulls)| Term(name, descending, nulls)).collect()
    })
}

fn cell<'a>(row: &'a ThingRow, name: &str) -> Value<'a> {
    let columns = ThingRow::TABLE.columns;
    row.value(columns.iter().position(|c| c.name == name).expect("a column"))
}

fn compare(a: &ThingRow, b: &ThingRow, order: &[Term]) -> Ordering {
    let last = order.last().is_some_and(|term| term.1);
    let keys = [Term("name", last, None), Term("number", last, None)];
    for Term(name, descending, nulls_first) in order.iter().chain(&keys) {
        let (a, b) = (cell(a, name), cell(b, name));
        let nulls_first = nulls_first.unwrap_or(*descending);
        let null = |v: &Value<'_>| (*v == Value::Null) != nulls_first;
        let values = if *descending { b.cmp(&a) } else { a.cmp(&b) };
        let found = match (a == Value::Null, b == Value::Null) {
            (false, false) | (true, true) => values,
            _ => null(&a).cmp(&null(&b)),
        };
        if found != Ordering::Equal {
            return found;
        }
    }
    Ordering::Equal
}

fn order_text(order: &[Term]) -> String {
    let term = |Term(name, descending, nulls): &Term| {
        let direction = if *descending { "desc" } else { "asc" };
        let nulls = match nulls {
            None => "",
            Some(true) => ".nullsfirst",
            Some(false) => ".nullslast",
        };
        format!("{name}.{direction}{nulls}")
    };
    order.iter().map(term).collect::<Vec<_>>().join(",")
}

type Keep = fn(&ThingRow) -> bool;
/// Filters and what they mean in memory.
fn filters() -> Vec<(&'static str, Keep)> {
    vec![
        ("", |_| true),
        ("sold=eq.true&", |r| r.sold),
        ("count=gt.-2&count=lte.1&", |r| r.count > -2 && r.count <= 1),
        ("shape=is.null&", |r| r.shape.is_none()),
        ("shape=not.is.null&", |r| r.shape.is_some()),
        ("shape=neq.a&", |r| r.shape.as_deref().is_some_and(|s| s != "a")),
        ("shape=in.(a,%22%C3%A9%22)&", |r| matches!(r.shape.as_deref(), Some("a" | "é"))),
        ("shape=not.in.(a,b)&", |r| r.shape.as_deref().is_some_and(|s| !matches!(s, "a" | "b"))),
        ("name=like.a*&", |r| r.name.starts_with('a')),
        ("name=not.like.a*&", |r| !r.name.starts_with('a')),
        ("price=gte.0&", |r| r.price.is_some_and(|p| p >= Money::ZERO)),
        ("made_on=lt.2010-12-03&", |r| r.made_on < Date::from_ymd_opt(2010, 12, 3).expect("date")),
        ("seen_at=eq.1970-01-01T00:00:01.000001Z&", |r| {
            r.seen_at.is_some_and(|s| s.as_micros() == 1_000_001)
        }),
        ("tag=eq.00000000-0000-0000-0000-000000000001&", |r| r.tag == Some(Uuid::from_u128(1))),
        ("look=eq.square&", |r| r.look == Shape::Square),
    ]
}

fn cursor(answer: &Answer, which: &str) -> Option<String> {
    answer.json()["page"][which].as_str().map(str::to_owned)
}

/// All rows from the first page to the last, then all pages back to the first.
async fn walk(api: &Api, query: &str) -> (Vec<serde_json::Value>, Vec<serde_json::Value>) {
    let (mut there, mut back) = (Vec::new(), Vec::new());
    let mut page = api.get(&format!("/v1/things?{query}")).await;
    assert_eq!(cursor(&page, "prev"), None, "the first page of {query}");
    loop {
        there.extend(page.data());
        assert_eq!(page.json()["page"]["has_more"], cursor(&page, "next").is_some());
        let Some(next) = cursor(&page, "next") else { break };
        page = api.get(&format!("/v1/things?{query}cursor={next}")).await;
        assert!(!page.data().is_empty(), "has_more, but nothing more: {query}");
    }
    let mut pages = vec![page.data()];
    while let Some(prev) = cursor(&page, "prev") {
        page = api.get(&format!("/v1/things?{query}cursor={prev}")).await;
        assert!(cursor(&page, "next").is_some());
        pages.push(page.data());
    }
    pages.into_iter().rev().for_each(|page| back.extend(page));
    (there, back)
}

#[tokio::test]
async fn pages_there_and_back_are_a_sort_in_memory() {
    let api = Api::start("pages").await;
    let mut runner = TestRunner::deterministic();
    let mut rows = std::collections::BTreeMap::new();
    for _ in 0..120 {
        let row = any_row().new_tree(&mut runner).expect("a row").current();
        rows.insert((row.name.clone(), row.number), row);
    }
    let rows: Vec<ThingRow> = rows.into_values().collect();
    api.write(&rows).await;
    let filters = filters();
    for round in 0..45 {
        let order = any_order().new_tree(&mut runner).expect("an order").current();
        let limit = (1..40_u32).new_tree(&mut runner).expect("a limit").current();
        let (filter, keep) = filters[round % filters.len()];
        let order_text = match order.is_empty() {
            true => String::new(),
            false => format!("order={}&", order_text(&order)),
        };
        let query = format!("{filter}{order_text}limit={limit}&");
        let mut expected: Vec<&ThingRow> = rows.iter().filter(|row| keep(row)).collect();
        expected.sort_by(|a, b| compare(a, b, &order));
        let expected: Vec<_> =
            expected.into_iter().map(|r| serde_json::to_value(Shown(r)).expect("a row")).collect();
        let (there, back) = walk(&api, &query).await;
        assert_eq!(there, expected, "forward: {query}");
        assert_eq!(back, expected, "backward: {query}");
    }
}

#[tokio::test]
async fn pages_stand_while_rows_come_and_go() {
    let api = Api::start("stable").await;
    let rows: Vec<ThingRow> = (0..20).map(|n| thing("m", n)).collect();
    api.write(&rows).await;
    let first = api.get("/v1/things?order=count.desc&limit=5").await;
    let next = cursor(&first, "next").expect("more");
    // The row the cursor points at goes, others come before and after it.
    api.remove(&rows[15]).await;
    api.write(&[thing("new", 30), thing("new", 14)]).await;
    let second = api.get(&format!("/v1/things?order=count.desc&limit=5&cursor={next}")).await;
    let numbers: Vec<_> = second.data().iter().map(|r| r["number"].clone()).collect();
    assert_eq!(numbers, [14, 14, 13, 12, 11]);
}

#[tokio::test]
async fn past_the_end_there_is_a_way_back() {
    let api = Api::start("end").await;
    let rows: Vec<ThingRow> = (0..4).map(|n| thing("m", n)).collect();
    api.write(&rows).await;
    let next = cursor(&api.get("/v1/things?limit=2").await, "next").expect("more");
    api.remove(&rows[2]).await;
    api.remove(&rows[3]).await;
    let empty = api.get(&format!("/v1/things?limit=2&cursor={next}")).await;
    assert_eq!((empty.data().len(), cursor(&empty, "next")), (0, None));
    let prev = cursor(&empty, "prev").expect("a way back");
    let back = api.get(&format!("/v1/things?limit=2&cursor={prev}")).await;
    assert_eq!(back.data().len(), 2);
}

#[tokio::test]
async fn the_link_header_is_followed_as_it_stands() {
    let api = Api::start("link").await;
    api.write(&(0..7).map(|n| thing("a b&c", n)).collect::<Vec<_>>()).await;
    let mut path = "/v1/things?name=eq.a+b%26c&order=number.desc&limit=3".to_owned();
    let mut seen = Vec::new();
    loop {
        let answer = api.get(&path).await;
        seen.extend(answer.data().iter().map(|row| row["number"].as_i64().expect("a number")));
        let links = answer.headers.get("link").map(|l| l.to_str().expect("ASCII").to_owned());
        let next = links.iter().flat_map(|l| l.split(", ")).find(|l| l.contains("rel=\"next\""));
        let Some(link) = next else { break };
        path = link.split(['<', '>']).nth(1).expect("an address").to_owned();
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn a_cursor_is_good_for_its_query_and_its_time() {
    let lifetime = Duration::from_secs(1);
    let api = Api::start_with("cursor", |o| o.cursor_lifetime = lifetime).await;
    api.write(&(0..4).map(|n| thing("a", n)).collect::<Vec<_>>()).await;
    let next = cursor(&api.get("/v1/things?limit=1").await, "next").expect("more");
    // Another limit is the same query; other filters, order or columns are not.
    assert_eq!(api.get(&format!("/v1/things?limit=3&cursor={next}")).await.status, 200);
    for other in ["sold=eq.true", "order=count", "select=name", "name=eq.a"] {
        let answer = api.get(&format!("/v1/things?{other}&cursor={next}")).await;
        assert_eq!(answer.problem(), (400, "cursor-invalid".to_owned()), "{other}");
    }
    let mut forged = next.clone();
    forged.replace_range(3..4, if &next[3..4] == "A" { "B" } else { "A" });
    for bad in [forged.as_str(), "x", "", "%F0%9F%92%A9", &next[..next.len() - 1]] {
        let answer = api.get(&format!("/v1/things?cursor={bad}")).await;
        assert_eq!(answer.problem(), (400, "cursor-invalid".to_owned()), "{bad}");
    }
    let path = format!("/v1/things?limit=1&cursor={next}");
    let expired = eventually(Duration::from_secs(5), "the cursor's end", async || {
        Some(api.get(&path).await).filter(|answer| answer.status != 200)
    });
    assert_eq!(expired.await.problem(), (410, "cursor-expired".to_owned()));
}
