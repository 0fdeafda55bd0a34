//! Whatever is sent, the answer is a clear refusal or harmless: no 5xx, no SQL, no stack.

use crate::harness::{Answer, Api, thing};

/// Attempts to leave the place of a value.
const INJECTIONS: [&str; 60] = [
    "'",
    "''",
    "\"",
    "\\",
    "\\'",
    "`",
    ";",
    "--",
    "/*",
    "*/",
    "#",
    "%",
    "%%",
    "_",
    "*",
    "$1",
    "$$",
    "$a$",
    "?",
    ":x",
    "@x",
    "()",
    "(",
    ")",
    "' or '1'='1",
    "' or 1=1 --",
    "\" or \"\"=\"",
    "1 or 1=1",
    "1; drop table things",
    "'; drop table meta.builds; --",
    "x'; select pg_sleep(10); --",
    "1 union select null",
    "' union select version() --",
    "') or ('a'='a",
    "name) or 1=1",
    "name; select 1",
    "name desc, (select 1)",
    "case when 1=1 then name end",
    "(select pg_read_file('/etc/passwd'))",
    "pg_sleep(10)",
    "current_user",
    "secret",
    "things.secret",
    "name::text",
    "name->>'a'",
    "name||secret",
    "rm_things_b1.things",
    "information_schema.tables",
    "null",
    "NULL",
    "true",
    "{}",
    "[]",
    "{\"a\":1}",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "\r\nSet-Cookie: a=b",
    "\u{feff}\u{202e}",
    "\u{1}\u{7f}",
    "𝕏'𝕏",
];

fn encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// Refused as a problem or answered with rows, and nothing of the inside in it.
fn harmless(answer: &Answer, what: &str) {
    match answer.status {
        200 => {}
        400 | 404 => drop(answer.problem()),
        status => panic!("{what}: {status} {}", answer.text),
    }
    let text = answer.text.to_lowercase();
    for inside in ["not for everyone", "syntax error", "sqlstate", "pg_catalog", "panicked", "sqlx"]
    {
        assert!(!text.contains(inside), "{what}: {}", answer.text);
    }
    let rows = answer.text.contains("\"data\":[{");
    assert!(
        !rows || what.contains("neq") || what.ends_with("is null"),
        "{what} found rows: {}",
        answer.text
    );
    assert!(answer.headers.get("set-cookie").is_none(), "{what}");
}

#[tokio::test]
async fn sixty_injections_on_every_parameter_are_harmless() {
    let api = Api::start("injections").await;
    api.write(&[thing("a", 1), thing("b", 2)]).await;
    let text_columns = ["name", "shape", "look"];
    let other_columns = ["number", "price", "made_on", "seen_at", "count", "sold", "tag"];
    for injection in INJECTIONS {
        let encoded = encode(injection);
        for column in text_columns {
            let operators = ["eq", "neq", "like", "not.is"];
            // Columns of one type are treated alike: the first takes them all.
            for operator in &operators[..if column == "name" { 4 } else { 1 }] {
                let path = format!("/v1/things?{column}={operator}.{encoded}");
                let what = format!("{column} {operator} {injection}").to_lowercase();
                harmless(&api.get(&path).await, &what);
            }
            for list in [format!("({encoded})"), format!("(%22{encoded}%22)")] {
                let path = format!("/v1/things?{column}=in.{list}");
                harmless(&api.get(&path).await, &format!("{column} in {injection}"));
            }
        }
        for column in other_columns {
            let answer = api.get(&format!("/v1/things?{column}=eq.{encoded}")).await;
            // `true` is a boolean all the same; 1 is an odd number.
            let valid = column == "sold" && injection == "true";
            if !valid {
                assert_eq!(answer.problem(), (400, "invalid-query".to_owned()), "{injection}");
                harmless(&answer, injection);
            }
        }
        for parameter in ["select", "order", "limit", "secret", "extra", &encoded] {
            let path = format!("/v1/things?{parameter}={encoded}");
            let answer = api.get(&path).await;
            assert_eq!(answer.problem(), (400, "invalid-query".to_owned()), "{path} {injection}");
            harmless(&answer, &path);
        }
        let answer = api.get(&format!("/v1/things?cursor={encoded}")).await;
        assert_eq!(answer.problem(), (400, "cursor-invalid".to_owned()), "{injection}");
        let answer = api.get(&format!("/v1/things?limit=1&name=eq.a&{encoded}={encoded}")).await;
        assert_eq!(answer.problem().0, 400, "{injection}");
        harmless(&api.get(&format!("/v1/things/{encoded}/1")).await, injection);
        let answer = api.get(&format!("/v1/things/a/{encoded}")).await;
        assert_eq!(answer.problem(), (400, "invalid-path".to_owned()), "{injection}");
        harmless(&api.get(&format!("/v1/{encoded}")).await, injection);
    }
    // Everything is still there.
    assert_eq!(api.get("/v1/things").await.data().len(), 2);
}

#[tokio::test]
async fn headers_from_anywhere_are_harmless() {
    let api = Api::start("headers").await;
    api.write(&[thing("a", 1)]).await;
    let visible = |text: &&&str| text.bytes().all(|b| (0x20..0x7f).contains(&b));
    for injection in INJECTIONS.iter().filter(visible) {
        let sent = [("consistency-token", *injection)];
        let answer = api.get_with("/v1/things", &sent).await;
        assert_eq!(answer.problem(), (400, "token-invalid".to_owned()), "{injection}");
        let answer = api.get_with("/v1/things", &[("prefer", injection)]).await;
        assert_eq!(answer.data().len(), 1, "{injection}");
        let answer = api.get_with("/v1/things", &[("if-none-match", injection)]).await;
        assert!(matches!(answer.status, 200 | 304), "{injection}");
        let wait = format!("wait={injection}");
        let answer = api.get_with("/v1/things", &[("prefer", &wait)]).await;
        assert!(matches!(answer.status, 200 | 400), "{injection}");
        let answer = api.get_with("/v1/things", &[("accept", injection)]).await;
        assert_eq!(answer.problem(), (406, "not-acceptable".to_owned()), "{injection}");
    }
    let twice = [("consistency-token", "e30"), ("consistency-token", "e30")];
    let answer = api.get_with("/v1/things", &twice).await;
    assert_eq!(answer.problem(), (400, "invalid-header".to_owned()));
}

#[tokio::test]
async fn a_refusal_names_the_parameter_the_rule_and_what_is_allowed() {
    let api = Api::start("refusals").await;
    let cases = [
        ("limit=0", "limit", "out-of-range", "500"),
        ("limit=-1", "limit", "out-of-range", "500"),
        ("limit=501", "limit", "out-of-range", "500"),
        ("limit=1e3", "limit", "out-of-range", "500"),
        ("limit=5&limit=5", "limit", "duplicate", "once"),
        ("colour=eq.red", "colour", "unknown-parameter", "shape"),
        ("name=similar.x", "name", "unknown-operator", "like"),
        ("order=colour", "order", "unknown-column", "shape"),
        ("select=colour", "select", "unknown-column", "shape"),
        ("name=like.*a", "name", "leading-wildcard", "*"),
        ("name=eq.%zz", "name", "bad-encoding", "%"),
        ("name=eq.%ff", "name", "bad-encoding", "UTF-8"),
        ("name=eq.%00", "name", "nul", "U+0000"),
    ];
    for (query, pointer, code, part) in cases {
        let answer = api.get(&format!("/v1/things?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid-query".to_owned()), "{query}");
        let error = answer.json()["errors"][0].clone();
        assert_eq!((&error["pointer"], &error["code"]), (&pointer.into(), &code.into()), "{query}");
        assert!(error["detail"].as_str().is_some_and(|d| d.contains(part)), "{error}");
    }
    let long = format!("/v1/things?{}=1", "x".repeat(5_000));
    assert!(api.get(&long).await.text.len() < 1_000, "what was sent is not sent back whole");
    let values = vec!["a"; 201].join(",");
    for query in [vec!["count=gt.1"; 21].join("&"), format!("name=in.({values})")] {
        let answer = api.get(&format!("/v1/things?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid-query".to_owned()));
    }
    for query in ["limit=5", "name=eq.a", "cursor=x", "select=name&select=name", "x"] {
        let answer = api.get(&format!("/v1/things/a/1?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid-query".to_owned()), "{query}");
    }
}
