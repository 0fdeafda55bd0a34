//! Requests that are no commands.

use crate::server::{App, tab};
use foldstream_commands::Options;
use serde_json::json;

#[tokio::test]
async fn bodies_that_are_no_json_are_400() {
    let app = App::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let bodies: &[&[u8]] = &[
        b"",
        b"{",
        b"{\"guest\": NaN}",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b"{\"guest\": \"\xff\"}",
        b"{\"guest\": \"\\ud800\"}",
        b"{\"limit\": 1e400}",
        b"{\"guest\": \"a\", \"guest\": \"b\", \"limit\": 1}",
        b"{\"tab_id\": \"1\", \"tab_id\": \"1\", \"guest\": \"a\", \"limit\": 1}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let answer = app.send("/v1/guest-tabs", body, &[("content-type", "application/json")]);
        answer.await.is_problem(400, "malformed-json");
    }
}

#[tokio::test]
async fn bodies_that_can_never_succeed_are_422_and_say_where() {
    let app = App::start().await;
    let good = tab("1");
    let change = |name: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let mut missing = good.clone();
    missing.as_object_mut().expect("an object").remove("guest");
    let cases = [
        (json!([]), "", "wrong-type"),
        (json!("x"), "", "wrong-type"),
        (json!(null), "", "wrong-type"),
        (json!({"tab_id": "1"}), "/guest", "missing-member"),
        (missing, "/guest", "missing-member"),
        (change("other", 1.into()), "/other", "unknown-member"),
        (change("limit", "1".into()), "/limit", "wrong-type"),
        (change("limit", json!(1.5)), "/limit", "wrong-type"),
        (change("guest", "a\u{0}b".into()), "/guest", "control-character"),
        (change("tab_id", 1.into()), "/tab_id", "wrong-type"),
        (change("tab_id", json!(null)), "/tab_id", "wrong-type"),
        (change("tab_id", "".into()), "/tab_id", "bad-id"),
        (change("tab_id", "a/b".into()), "/tab_id", "bad-id"),
        (change("tab_id", "changes".into()), "/tab_id", "bad-id"),
        (change("tab_id", "x".repeat(65).into()), "/tab_id", "bad-id"),
        (change("tab_id", "X1".into()), "/tab_id", "bad-tab-id"),
    ];
    for (body, pointer, code) in cases {
        let answer = app.post("/v1/guest-tabs", &body).await;
        answer.is_problem(422, "invalid-body").is_about(pointer, code);
    }
}

#[tokio::test]
async fn media_types_and_sizes_are_checked() {
    let app = App::start_with(Options { body_limit: 2_000_000, ..Options::default() }).await;
    let body = tab("1").to_string();
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/json; charset=latin1")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
    ] {
        let answer = app.send("/v1/guest-tabs", body.as_bytes(), headers).await;
        answer.is_problem(415, "unsupported-media-type");
    }
    let json = [("content-type", "application/json")];
    let long = vec![b' '; 2_000_001];
    app.send("/v1/guest-tabs", &long, &json).await.is_problem(413, "body-too-large");
    // Within the limit of bodies, past that of events.
    let mut large = tab("1");
    large["guest"] = "x".repeat(1_100_000).into();
    app.post("/v1/guest-tabs", &large).await.is_problem(413, "body-too-large");
    assert_eq!(app.post("/v1/guest-tabs", &tab("1")).await.status, 201);
}

#[tokio::test]
async fn paths_are_checked() {
    let app = App::start().await;
    let long = "x".repeat(65);
    for id in ["a%20b", "%00", "%2e", "%2e%2e", "%2F", "%ff", "%c3%a9", "changes", "", &long] {
        let path = format!("/v1/guest-tabs/{id}/commands/open-tab");
        app.raw("POST", &path, &tab("1")).await.is_problem(400, "invalid-path");
        app.raw("GET", &format!("/v1/guest-tabs/{id}/history"), &tab("1"))
            .await
            .is_problem(400, "invalid-path");
    }
    // Within the grammar, but never the id of a tab.
    let body = json!({"guest": "a", "limit": 1});
    let answer = app.post("/v1/guest-tabs/X1/commands/open-tab", &body).await;
    answer.is_problem(422, "invalid-body").is_about("id", "bad-tab-id");
    let opened = app.raw("POST", "/v1/guest-tabs/%31/commands/open-tab", &body).await;
    assert_eq!((opened.status, &opened.json["stream"]), (200, &"guest-tabs/1".into()));

    let unknown = app.post("/v1/guest-tabs/1/commands/OpenTab", &body).await;
    unknown.is_problem(404, "not-found");
    assert_eq!(unknown.json["commands"], json!(["open-tab", "order-round", "close-tab"]));
    let detail = unknown.json["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("order-round"), "{detail}");
    for (method, path) in [
        ("POST", "/v1/guest-tabs/"),
        ("POST", "/v1/tabs"),
        ("POST", "/v1/guest-tabs/1/commands/"),
        ("POST", "/v1/guest-tabs/1/commands"),
        ("POST", "/v1/guest-tabs/1/commands/open-tab/"),
        ("GET", "/v1/guest-tabs/1/histories"),
    ] {
        app.raw(method, path, &body).await.is_problem(404, "not-found");
    }
    for (method, path) in [
        ("DELETE", "/v1/guest-tabs"),
        ("PUT", "/v1/guest-tabs/1/commands/open-tab"),
        ("POST", "/v1/guest-tabs/1/history"),
    ] {
        let answer = app.raw(method, path, &body).await;
        answer.is_problem(405, "method-not-allowed");
        assert!(answer.header("allow").is_some());
    }
}
