//! Bodies that cannot be accepted: the right refusal, naming the field and the rule; no event, and
//! never a fault of the server.

use serde_json::{Value, json};
use system_tests::api::{Answer, Api};
use system_tests::documents::{invoice, line, new_id};
use system_tests::shop::{Shop, shared};
use system_tests::{raw, sql};

/// A body, what must be answered, and the field and rule to blame where there is one.
struct Case {
    name: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    pointer: Option<&'static str>,
    rule: Option<&'static str>,
}

fn case(name: &'static str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Case {
    Case { name, body: body.into(), status, code, pointer: None, rule: None }
}

/// A body that is JSON and can never be accepted.
fn unfit(name: &'static str, body: &Value, pointer: &'static str) -> Case {
    let pointer = Some(pointer);
    Case { pointer, ..case(name, body.to_string(), 422, "invalid-body") }
}

impl Case {
    fn rule(self, rule: &'static str) -> Self {
        Case { rule: Some(rule), ..self }
    }

    /// A rule of the aggregate: its code is the problem's.
    fn code(self, code: &'static str) -> Self {
        Case { code, rule: Some(code), ..self }
    }

    fn check(&self, answer: &Answer) {
        assert!(answer.status < 500, "{}: {}", self.name, answer.shown());
        assert_eq!(answer.status, self.status, "{}: {}", self.name, answer.shown());
        let problem = answer.is_problem();
        assert_eq!(problem["code"], self.code, "{}: {}", self.name, answer.shown());
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let Some(pointer) = self.pointer else { return };
        let to_blame = errors.iter().find(|error| error["pointer"] == pointer);
        let found = to_blame
            .unwrap_or_else(|| panic!("{}: {pointer} is not named: {}", self.name, answer.shown()));
        if let Some(rule) = self.rule {
            assert_eq!(found["code"], rule, "{}: {}", self.name, answer.shown());
        }
    }
}

/// The sound invoice with one member changed; `pointer` names it.
fn with(id: &str, pointer: &str, value: Value) -> Value {
    let mut body = invoice(id);
    *body.pointer_mut(pointer).expect("the member is there") = value;
    body
}

fn without(id: &str, parent: &str, member: &str) -> Value {
    let mut body = invoice(id);
    let parent = body.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.expect("the parent is there").remove(member);
    body
}

fn added(id: &str, parent: &str, member: &str) -> Value {
    let mut body = invoice(id);
    let parent = body.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.expect("the parent is there").insert(member.to_owned(), 1.into());
    body
}

/// What is not JSON, or not JSON that one can rely on.
fn not_json(id: &str) -> Vec<Case> {
    let sound = invoice(id).to_string();
    let bad = |name, body: Vec<u8>| case(name, body, 400, "malformed-json");
    let replaced = |what: &str, by: &str| sound.replacen(what, by, 1).into_bytes();
    let nested = |levels: usize| {
        format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels)).into_bytes()
    };
    let mut not_utf8 = sound.clone().into_bytes();
    not_utf8.extend_from_slice(b"\xff");
    let inside = sound.find("United").expect("it holds a country");
    let mut latin1 = sound.clone().into_bytes();
    latin1[inside] = 0xe9;
    vec![
        bad("nothing", Vec::new()),
        bad("half of it", sound.as_bytes()[..sound.len() / 2].to_vec()),
        bad("a trailing comma", replaced("\"85123A\"", "\"85123A\",,")),
        bad("single quotes", b"{'a': 1}".to_vec()),
        bad("a comment", replaced("{", "{/* */")),
        bad("a byte order mark", format!("\u{feff}{sound}").into_bytes()),
        bad("something after it", format!("{sound} {{}}").into_bytes()),
        bad("not a number", replaced("\"quantity\":6", "\"quantity\":NaN")),
        bad("beyond every number", replaced("\"quantity\":6", "\"quantity\":1e400")),
        bad("a lone surrogate", replaced("United", "\\ud800")),
        bad("bytes after it", not_utf8),
        bad("Latin-1", latin1),
        bad("a member twice", replaced("\"country\"", "\"currency\":\"GBP\",\"country\"")),
        bad("a member twice below", replaced("\"quantity\":6", "\"quantity\":6,\"quantity\":6")),
        bad(
            "a member twice by escape",
            replaced("\"country\"", "\"c\\u006funtry\":\"x\",\"country\""),
        ),
        bad("too deep", nested(33)),
        bad("far too deep", nested(100_000)),
    ]
}

/// JSON of another shape.
fn other_shapes(id: &str) -> Vec<Case> {
    let long = "x".repeat(65);
    vec![
        unfit("an array", &json!([invoice(id)]), "").rule("wrong-type"),
        unfit("the values alone", &json!(["2010-12-01T08:26:00Z", null, "x", "GBP", []]), ""),
        unfit("a text", &json!("invoice"), "").rule("wrong-type"),
        unfit("null", &Value::Null, "").rule("wrong-type"),
        unfit("an empty object", &json!({}), "/issued_at").rule("missing-member"),
        unfit("an unknown member", &added(id, "", "total"), "/total").rule("unknown-member"),
        unfit("one below", &added(id, "/lines/0", "vat"), "/lines/0/vat").rule("unknown-member"),
        unfit("no country", &without(id, "", "country"), "/country").rule("missing-member"),
        unfit("no sku", &without(id, "/lines/0", "sku"), "/lines/0/sku").rule("missing-member"),
        unfit("lines as an object", &with(id, "/lines", json!({})), "/lines").rule("wrong-type"),
        unfit("no lines at all", &with(id, "/lines", Value::Null), "/lines").rule("wrong-type"),
        unfit("a line as an array", &with(id, "/lines/0", json!(["a", "b", 1, "1"])), "/lines/0")
            .rule("wrong-type"),
        unfit("a country of null", &with(id, "/country", Value::Null), "/country"),
        unfit("a number as country", &with(id, "/country", 7.into()), "/country")
            .rule("wrong-type"),
        unfit("an empty country", &with(id, "/country", "".into()), "/country"),
        unfit("a long country", &with(id, "/country", long.as_str().into()), "/country"),
        unfit("a long sku", &with(id, "/lines/0/sku", long.as_str().into()), "/lines/0/sku"),
        unfit("an empty sku", &with(id, "/lines/0/sku", "".into()), "/lines/0/sku"),
        unfit(
            "a long description",
            &with(id, "/lines/0/description", "x".repeat(201).into()),
            "/lines/0/description",
        ),
        unfit("a customer with a blank", &with(id, "/customer_id", "a b".into()), "/customer_id"),
    ]
}

/// Texts with characters that do not belong there.
fn control_characters(id: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text) in [
        ("NUL", "a\0b"),
        ("a bell", "a\u{7}b"),
        ("a line feed", "a\nb"),
        ("DEL", "a\u{7f}b"),
        ("a C1 control", "a\u{85}b"),
    ] {
        for pointer in ["/country", "/lines/0/sku", "/lines/0/description", "/customer_id"] {
            cases.push(unfit(name, &with(id, pointer, text.into()), pointer));
        }
    }
    cases
}

/// Numbers, amounts, instants and currencies.
fn values(id: &str) -> Vec<Case> {
    let quantity = |name, value: Value| {
        unfit(name, &with(id, "/lines/0/quantity", value), "/lines/0/quantity")
    };
    let price = |name, value: Value| {
        unfit(name, &with(id, "/lines/0/unit_price", value), "/lines/0/unit_price")
    };
    let issued = |name, text: &str| unfit(name, &with(id, "/issued_at", text.into()), "/issued_at");
    let currency = |name, text: &str| unfit(name, &with(id, "/currency", text.into()), "/currency");
    vec![
        quantity("a negative quantity", (-6).into()).code("quantity-out-of-range"),
        quantity("no quantity", 0.into()).code("quantity-out-of-range"),
        quantity("a large quantity", 1_000_001.into()).code("quantity-out-of-range"),
        quantity("the largest number", i64::MAX.into()).code("quantity-out-of-range"),
        quantity("beyond the largest", u64::MAX.into()),
        quantity("a fraction", 1.5.into()),
        quantity("a quantity in a string", "6".into()).rule("wrong-type"),
        quantity("a quantity of true", true.into()).rule("wrong-type"),
        price("money as a float", 2.55.into()).rule("wrong-type"),
        price("money as an integer", 2.into()).rule("wrong-type"),
        price("five decimals", "2.55001".into()),
        price("an exponent", "1e3".into()),
        price("a comma", "2,55".into()),
        price("a blank before", " 2.55".into()),
        price("a plus", "+2.55".into()),
        price("nothing", "".into()),
        price("a point alone", ".".into()),
        price("infinity", "inf".into()),
        price("below nothing", "-0.0001".into()).code("unit-price-out-of-range"),
        price("too much", "1000000.0001".into()).code("unit-price-out-of-range"),
        price("far too much", "9".repeat(40).into()),
        currency("lower case", "gbp"),
        currency("no such currency", "XYZ"),
        currency("a long currency", "GBPX"),
        currency("an empty currency", ""),
        issued("a day", "2010-12-01"),
        issued("a zone", "2010-12-01T08:26:00+01:00"),
        issued("no zone", "2010-12-01T08:26:00"),
        issued("nanoseconds", "2010-12-01T08:26:00.000000001Z"),
        issued("the 30th of February", "2010-02-30T08:26:00Z"),
        issued("a word", "now"),
        issued("the year 10000", "+10000-01-01T00:00:00Z"),
    ]
}

/// How many lines, and how much they come to.
fn sizes(id: &str) -> Vec<Case> {
    let lines = |name, lines: Vec<Value>| unfit(name, &with(id, "/lines", lines.into()), "/lines");
    let dear = json!({
        "sku": "x", "description": "", "quantity": 1_000_000, "unit_price": "1000000",
    });
    vec![
        lines("no lines", Vec::new()).code("line-count"),
        lines("5,001 lines", vec![line(); 5_001]).code("line-count"),
        lines("too much in all", vec![dear.clone(), dear]).code("amount-out-of-range"),
    ]
}

fn ids() -> Vec<Case> {
    let id = |name, id: Value| unfit(name, &with("x", "/invoice_id", id), "/invoice_id");
    vec![
        id("a credit note's id", "C536365".into()).rule("bad-invoice-id"),
        id("an empty id", "".into()),
        id("a long id", "x".repeat(65).into()),
        id("a blank in an id", "a b".into()),
        id("a slash in an id", "a/b".into()),
        id("a point", ".".into()),
        id("two points", "..".into()),
        id("the reserved id", "changes".into()),
        id("an id that is a number", 536_365.into()).rule("wrong-type"),
        id("text that runs backwards", "a\u{202e}b".into()),
        id("a NUL in an id", "a\0".into()),
    ]
}

/// How many events carry this correlation id.
async fn stored(shop: &Shop, correlation: &str) -> i64 {
    let count = format!(
        "select count(*) from events where metadata ->> 'correlation_id' = '{correlation}'"
    );
    sql::number(&shop.database("shop_invoicing"), &count).await.expect("the store answers")
}

async fn post(api: &Api, correlation: &str, body: &[u8]) -> Answer {
    let headers = [("content-type", "application/json"), ("x-correlation-id", correlation)];
    api.ask("POST", "/v1/invoices", &headers, Some(body.to_vec())).await
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused_and_leaves_nothing() {
    let shop = shared().await;
    let (api, id, correlation) = (shop.api(), new_id(), new_id());
    let cases =
        [not_json(&id), other_shapes(&id), control_characters(&id), values(&id), sizes(&id), ids()];
    for case in cases.iter().flatten() {
        case.check(&post(&api, &correlation, &case.body).await);
    }
    assert_eq!(stored(&shop, &correlation).await, 0);
    api.get(&format!("/v1/invoices/{id}/history")).await.problem(404, "not-found");
    // The same door is open to what fits, and the count sees it.
    post(&api, &correlation, invoice(&id).to_string().as_bytes()).await.expect(201);
    assert_eq!(stored(&shop, &correlation).await, 1);
}

#[tokio::test]
async fn a_body_of_another_media_type_is_refused() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let body = Some(invoice(&id).to_string().into_bytes());
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/xml")],
        &[("content-type", "application/json; charset=latin-1")],
        &[("content-type", "json")],
        &[("content-type", "")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let answer = api.ask("POST", "/v1/invoices", headers, body.clone()).await;
        answer.problem(415, "unsupported-media-type");
    }
    api.get(&format!("/v1/invoices/{id}/history")).await.problem(404, "not-found");
    let utf8 = [("content-type", "Application/JSON; charset=\"UTF-8\"")];
    api.ask("POST", "/v1/invoices", &utf8, body).await.expect(201);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_at_once() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let head = "POST /v1/invoices HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                connection: close\r\n";
    // Declared: refused before a single byte of it is sent.
    let declared = format!("{head}content-length: 8000000\r\n\r\n");
    let answer = raw::send(api.base(), "a declared length", &[declared.as_bytes()]).await;
    answer.problem(413, "body-too-large");
    // In chunks: refused when the limit is passed, not at its end.
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, " ".repeat(64 * 1024));
    let mut parts = vec![chunked.as_bytes()];
    parts.extend(vec![chunk.as_bytes(); 40]);
    let answer = raw::send(api.base(), "chunks without an end", &parts).await;
    answer.problem(413, "body-too-large");
    // A sound one in chunks is as good as any.
    let body = invoice(&id).to_string();
    let whole = format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    raw::send(api.base(), "one chunk", &[whole.as_bytes()]).await.expect(201);
}
