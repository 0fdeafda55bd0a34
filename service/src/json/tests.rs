use std::collections::BTreeMap;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::*;

fn status_of(body: &[u8]) -> (u16, String) {
    match parse(body) {
        Ok(value) => (200, value.to_string()),
        Err(problem) => (problem.status().as_u16(), problem.to_json(None).to_string()),
    }
}

#[test]
fn what_is_not_strict_json_is_400() {
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let deeper = "[".repeat(5_000);
    let bodies: &[&[u8]] = &[
        b"",
        b"  ",
        b"{",
        b"{\"a\":1} x",
        b"{\"a\":1}{}",
        b"NaN",
        b"[Infinity]",
        b"{'a':1}",
        b"[1,]",
        b"\xef\xbb\xbf{}",
        b"\"\\ud800\"",
        b"\"\xff\"",
        b"1e400",
        b"[-1e400]",
        b"01",
        b"\"a\x01b\"",
        deep.as_bytes(),
        deeper.as_bytes(),
        b"// x\n{}",
    ];
    for body in bodies {
        let (status, text) = status_of(body);
        assert_eq!(status, 400, "{} -> {text}", String::from_utf8_lossy(body));
        assert!(text.contains("malformed-json"), "{text}");
    }
}

#[test]
fn depth_32_is_allowed() {
    let body = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    assert_eq!(status_of(body.as_bytes()).0, 200);
}

#[test]
fn a_member_given_twice_is_named() {
    let problem = parse(br#"{"lines":[{"a/b":1,"a/b":2}]}"#).expect_err("given twice");
    assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
    assert_eq!(problem.field_errors()[0].pointer, "/lines/0/a~1b");
    assert_eq!(problem.field_errors()[0].code, "duplicate-member");
    // Escapes do not hide it.
    assert!(parse(br#"{"a":1,"\u0061":2}"#).is_err());
}

#[test]
fn control_characters_are_422_with_every_pointer() {
    let problem = parse(br#"{"a":"x\u0000","b":["\n","ok"],"c\u0001":1}"#).expect_err("controls");
    assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let pointers: Vec<_> = problem.field_errors().iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(pointers, ["/a", "/b/0", "/c\\u{1}"]);
}

#[derive(Debug, PartialEq, Deserialize)]
struct Invoice {
    id: Id,
    customer: Option<String>,
    lines: Vec<Line>,
    #[serde(default)]
    labels: BTreeMap<String, u8>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Id(String);

#[derive(Debug, PartialEq, Deserialize)]
struct Line {
    sku: String,
    quantity: i64,
    kind: Option<Sort>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Plain,
    Gift { text: String },
}

fn refused(value: Value) -> Vec<(String, String)> {
    let problem = decode::<Invoice>(&value).expect_err("it does not fit");
    assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let errors = problem.field_errors().iter();
    errors.map(|error| (error.pointer.clone(), error.code.to_string())).collect()
}

fn one(value: Value) -> (String, String) {
    let mut all = refused(value);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_body_that_fits_is_decoded() {
    let body = json!({"id": "1", "customer": null, "labels": {"a": 1}, "lines": [
        {"sku": "a", "quantity": 1, "kind": "plain"},
        {"sku": "b", "quantity": -1, "kind": {"gift": {"text": "hi"}}},
        {"sku": "c", "quantity": i64::MAX},
    ]});
    let invoice: Invoice = decode(&body).expect("it fits");
    assert_eq!(invoice.id, Id("1".to_owned()));
    assert_eq!(invoice.lines[1].kind, Some(Sort::Gift { text: "hi".to_owned() }));
    assert_eq!(invoice.lines[2].quantity, i64::MAX);
    assert_eq!(invoice.labels["a"], 1);
}

#[test]
fn an_array_is_never_taken_for_an_object() {
    let wrong = |pointer: &str| (pointer.to_owned(), "wrong-type".to_owned());
    assert_eq!(one(json!(["1", null, [], {}])), wrong(""));
    assert_eq!(one(json!({"id": "1", "lines": [["a", 1, null]]})), wrong("/lines/0"));
    let gift = json!({"gift": ["hi"]});
    let line = json!({"sku": "a", "quantity": 1, "kind": gift});
    assert_eq!(one(json!({"id": "1", "lines": [line]})), wrong("/lines/0/kind/gift"));
}

#[test]
fn each_fault_has_its_pointer_and_code() {
    let line = |quantity: Value| json!({"id": "1", "lines": [{"sku": "a", "quantity": quantity}]});
    let at = |pointer: &str, code: &str| (pointer.to_owned(), code.to_owned());
    let quantity = "/lines/0/quantity";
    assert_eq!(one(line(json!(13368.0))), at(quantity, "wrong-type"));
    assert_eq!(one(line(json!("1"))), at(quantity, "wrong-type"));
    assert_eq!(one(line(json!(null))), at(quantity, "wrong-type"));
    assert_eq!(one(line(json!(u64::MAX))), at(quantity, "out-of-range"));
    let huge = parse(b"99999999999999999999999").expect("it is JSON");
    assert_eq!(one(line(huge)), at(quantity, "wrong-type"));
    assert_eq!(one(json!({"lines": []})), at("/id", "missing-member"));
    assert_eq!(one(json!({"id": 1, "lines": []})), at("/id", "wrong-type"));
    assert_eq!(one(json!(null)), at("", "wrong-type"));
    assert_eq!(
        one(json!({"id": "1", "lines": [], "labels": {"a": 256}})),
        at("/labels/a", "invalid-value")
    );
    let kind = json!({"sku": "a", "quantity": 1, "kind": "odd"});
    assert_eq!(one(json!({"id": "1", "lines": [kind]})), at("/lines/0/kind", "unknown-value"));
    assert_eq!(
        refused(json!({"id": "1", "lines": [], "x": 1, "y~": 2})),
        [at("/x", "unknown-member"), at("/y~0", "unknown-member")]
    );
}

fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(n, v)| (n.clone(), HeaderValue::from_static(v)));
    pairs.collect()
}

#[tokio::test]
async fn the_media_type_must_be_json_in_utf_8_and_plain() {
    for (pairs, status) in [
        (vec![(CONTENT_TYPE, "application/json")], 200),
        (vec![(CONTENT_TYPE, "Application/JSON; Charset=\"UTF-8\"")], 200),
        (vec![(CONTENT_TYPE, "application/vnd.shop+json")], 200),
        (vec![(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "identity")], 200),
        (vec![], 415),
        (vec![(CONTENT_TYPE, "text/plain")], 415),
        (vec![(CONTENT_TYPE, "application/+json")], 415),
        (vec![(CONTENT_TYPE, "application/jsonp")], 415),
        (vec![(CONTENT_TYPE, "application/json; charset=latin1")], 415),
        (vec![(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")], 415),
        (vec![(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, "11")], 413),
    ] {
        let read = read_json(&headers(&pairs), Body::from("{\"a\":1}"), 10).await;
        let found = read.map_or_else(|problem| problem.status().as_u16(), |_| 200);
        assert_eq!(found, status, "{pairs:?}");
    }
    let json = headers(&[(CONTENT_TYPE, "application/json")]);
    let read = read_json(&json, Body::from("{\"a\":11111}"), 10).await;
    assert_eq!(read.map_err(|problem| problem.status().as_u16()), Err(413));
}
