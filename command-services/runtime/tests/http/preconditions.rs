//! `If-Match` and `If-None-Match`.

use crate::server::{App, tab};
use serde_json::json;

#[tokio::test]
async fn if_match_is_the_version_or_412() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let round = "/v1/guest-tabs/1/commands/order-round";
    let items = json!({"items": ["ale"]});
    let at = async |tag| app.post_with(round, &items, &[("if-match", tag)]).await;
    assert_eq!(at("\"1\"").await.header("etag"), Some("\"2\""));
    let old = at("\"1\"").await;
    old.is_problem(412, "version-mismatch");
    assert_eq!(old.json["current_version"], 2);
    at("\"3\"").await.is_problem(412, "version-mismatch");
    assert_eq!(at("*").await.status, 200);
    let absent =
        app.post_with("/v1/guest-tabs/2/commands/order-round", &items, &[("if-match", "*")]).await;
    absent.is_problem(412, "version-mismatch");
    assert_eq!(absent.json["current_version"], 0);
    let key = [("if-match", "*"), ("idempotency-key", "k")];
    let other = "/v1/guest-tabs/2/commands/order-round";
    app.post_with(other, &items, &key[1..]).await.is_problem(409, "tab-not-open");
    let again = app.post_with(other, &items, &key).await;
    again.is_problem(409, "tab-not-open"); // keys come before preconditions
    // A no-op and a refusal come after the precondition.
    let stale = [("if-match", "\"1\"")];
    app.post_with("/v1/guest-tabs", &tab("1"), &stale).await.is_problem(412, "version-mismatch");
}

#[tokio::test]
async fn if_none_match_is_a_stream_without_events_or_412() {
    let app = App::start().await;
    let none = [("if-none-match", "*")];
    assert_eq!(app.post_with("/v1/guest-tabs", &tab("1"), &none).await.status, 201);
    let again = app.post_with("/v1/guest-tabs", &tab("1"), &none).await;
    again.is_problem(412, "exists");
    assert_eq!(again.json["current_version"], 1);
}

#[tokio::test]
async fn a_command_that_needs_a_version_says_so() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let close = "/v1/guest-tabs/1/commands/close-tab";
    let tip = json!({"tip": 1});
    app.post(close, &tip).await.is_problem(428, "precondition-required");
    app.post_with(close, &tip, &[("if-match", "*")]).await.is_problem(428, "precondition-required");
    app.post(close, &json!({})).await.is_problem(422, "invalid-body");
    let none = [("if-none-match", "*")];
    app.post_with(close, &tip, &none).await.is_problem(412, "exists");
    assert_eq!(app.post_with(close, &tip, &[("if-match", "\"1\"")]).await.status, 200);
}

#[tokio::test]
async fn headers_outside_their_grammar_are_400() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let long = "x".repeat(256);
    let cases: &[&[(&str, &str)]] = &[
        &[("if-match", "1")],
        &[("if-match", "W/\"1\"")],
        &[("if-match", "\"1\", \"2\"")],
        &[("if-match", "\"0\"")],
        &[("if-match", "\"x\"")],
        &[("if-match", "\"1\""), ("if-match", "\"1\"")],
        &[("if-none-match", "\"1\"")],
        &[("if-none-match", "*"), ("if-none-match", "*")],
        &[("if-match", "\"1\""), ("if-none-match", "*")],
        &[("idempotency-key", "")],
        &[("idempotency-key", "\"\"")],
        &[("idempotency-key", "\"x")],
        &[("idempotency-key", &long)],
        &[("idempotency-key", "é")],
        &[("idempotency-key", "a"), ("idempotency-key", "b")],
    ];
    for headers in cases {
        let answer = app.post_with("/v1/guest-tabs", &tab("1"), headers).await;
        answer.is_problem(400, "invalid-header");
    }
    for token in ["", "garbage", "eyJ2IjoyLCJ0IjpbXX0"] {
        let answer =
            app.post_with("/v1/guest-tabs", &tab("1"), &[("consistency-token", token)]).await;
        answer.is_problem(400, "token-invalid");
    }
}
