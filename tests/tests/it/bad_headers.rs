//! Headers, paths and methods that mean nothing here.

use system_tests::documents::{invoice, new_id};
use system_tests::raw;
use system_tests::shop::shared;

#[tokio::test]
async fn a_header_outside_its_grammar_is_refused_and_named() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let long = "x".repeat(256);
    let token = "not a token";
    for (name, value) in [
        ("idempotency-key", ""),
        ("idempotency-key", "\"\""),
        ("idempotency-key", "\"open"),
        ("idempotency-key", long.as_str()),
        ("idempotency-key", "caf\u{e9}"),
        ("if-match", "1"),
        ("if-match", "\"one\""),
        ("if-match", "W/\"1\""),
        ("if-match", "\"-1\""),
        ("if-match", "\"99999999999999999999\""),
        ("if-match", "\"1\", \"2\""),
        ("if-none-match", "\"1\""),
        ("consistency-token", token),
        ("consistency-token", "AAAA"),
        ("consistency-token", "caf\u{e9}"),
    ] {
        let answer = api.post_with("/v1/invoices", &invoice(&id), &[(name, value)]).await;
        let problem = answer.expect(400).is_problem();
        assert_eq!(problem["errors"][0]["pointer"], name, "{value}: {}", answer.shown());
    }
    for twice in [("idempotency-key", "a"), ("if-match", "\"1\""), ("consistency-token", "")] {
        let answer = api.post_with("/v1/invoices", &invoice(&id), &[twice, twice]).await;
        answer.expect(400).is_problem();
    }
    let both = [("if-match", "\"1\""), ("if-none-match", "*")];
    api.post_with("/v1/invoices", &invoice(&id), &both).await.problem(400, "invalid-header");
    api.get(&format!("/v1/invoices/{id}/history")).await.problem(404, "not-found");
    // What is no trace is as good as none.
    let odd = [("traceparent", "00-xyz"), ("x-correlation-id", "a b c")];
    let answer = api.post_with("/v1/invoices", &invoice(&id), &odd).await;
    assert_eq!(answer.expect(201).need("x-trace-id").len(), 32);
}

#[tokio::test]
async fn http_itself_is_taken_seriously() {
    let shop = shared().await;
    let api = shop.api();
    let get = |headers: &str| {
        format!("GET /v1/sales_by_day HTTP/1.1\r\nconnection: close\r\n{headers}\r\n").into_bytes()
    };
    let many: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("host: x\r\nx: {}\r\n", "y".repeat(40 * 1024));
    for (what, request, status) in [
        ("no host", get(""), 400),
        ("two hosts", get("host: a\r\nhost: b\r\n"), 400),
        ("a sound request", get("host: x\r\n"), 200),
        ("150 headers", get(&format!("host: x\r\n{many}")), 431),
        ("a header of 40 KiB", get(&large), 431),
        ("a blank before the colon", get("host: x\r\nx : 1\r\n"), 400),
        ("NUL in a header", get("host: x\r\nx: a\0b\r\n"), 400),
        ("two lengths", get("host: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n"), 400),
    ] {
        let answer = raw::send(api.base(), what, &[&request]).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.shown());
    }
    let foreign =
        b"GET http://elsewhere/v1/invoices HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    raw::send(api.base(), "another host", &[foreign]).await.expect(400);
    let long = format!("/v1/invoices?country=eq.{}", "x".repeat(9_000));
    api.get(&long).await.problem(414, "uri-too-long");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_refused() {
    let shop = shared().await;
    let (api, long) = (shop.api(), "x".repeat(65));
    for path in [
        "/v1/invoices/%00/history".to_owned(),
        "/v1/invoices/a%20b/history".to_owned(),
        "/v1/invoices/..%2fetc/history".to_owned(),
        "/v1/invoices/changes/history".to_owned(),
        "/v1/invoices/%ff/history".to_owned(),
        format!("/v1/invoices/{long}/history"),
        "/v1/invoices/a%20b/state".to_owned(),
    ] {
        api.get(&path).await.problem(400, "invalid-path");
    }
    for path in ["/", "/v1", "/v1/nothing", "/v1/invoices/x/nothing", "/v1/invoices/"] {
        api.get(path).await.problem(404, "not-found");
    }
    let unknown = api.post("/v1/invoices/x/commands/explode", &invoice("x")).await;
    unknown.problem(404, "not-found");
    let of_credit_note = api.post("/v1/invoices/C1/commands/issue-invoice", &invoice("C1")).await;
    of_credit_note.problem(422, "invalid-body");
    let other = api.post("/v1/invoices/a1/commands/issue-invoice", &invoice("b1")).await;
    let problem = other.problem(422, "invalid-body");
    assert_eq!(problem["errors"][0]["pointer"], "/invoice_id");

    for (method, path, allowed) in [
        ("DELETE", "/v1/invoices", &["GET", "POST"][..]),
        ("PUT", "/v1/invoices/x/history", &["GET"]),
        ("GET", "/v1/invoices/x/commands/issue-invoice", &["POST"]),
        ("POST", "/v1/sales_by_day", &["GET"]),
        ("PATCH", "/v1/invoices/x", &["GET"]),
    ] {
        let answer = api.ask(method, path, &[], None).await;
        answer.problem(405, "method-not-allowed");
        let allow = answer.need("allow");
        let allow: Vec<&str> = allow.split(',').map(str::trim).collect();
        assert!(allowed.iter().all(|m| allow.contains(m)), "{method} {path}: {allow:?}");
        assert!(!allow.contains(&method), "{method} {path}: {allow:?}");
    }
}

#[tokio::test]
async fn questions_about_a_stream_are_read_strictly() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    api.post("/v1/invoices", &invoice(&id)).await.expect(201);
    for (query, pointer) in [
        ("history?limit=0", "limit"),
        ("history?limit=501", "limit"),
        ("history?limit=1e3", "limit"),
        ("history?limit=-1", "limit"),
        ("history?limit=1&limit=2", "limit"),
        ("history?from=0", "from"),
        ("history?from=x", "from"),
        ("history?page=2", "page"),
        ("state?version=0", "version"),
        ("state?version=1.0", "version"),
        ("state?as_of=yesterday", "as_of"),
        ("state?as_of=2010-12-01", "as_of"),
        ("state?version=1&as_of=2030-01-01T00:00:00Z", "as_of"),
    ] {
        let answer = api.get(&format!("/v1/invoices/{id}/{query}")).await;
        let problem = answer.problem(400, "invalid-query");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{query}: {}", answer.shown());
    }
}
