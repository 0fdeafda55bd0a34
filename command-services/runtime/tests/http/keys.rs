//! Idempotency keys: one effect, one answer.

use crate::server::{Answer, App, tab};
use serde_json::json;

fn same_answer(first: &Answer, again: &Answer) {
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    for name in ["etag", "location", "consistency-token", "content-type"] {
        assert_eq!(first.header(name), again.header(name), "{name}");
    }
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn the_same_request_again_has_the_same_answer() {
    let app = App::start().await;
    let first = app.post_with("/v1/guest-tabs", &tab("1"), &[("idempotency-key", "k")]).await;
    assert_eq!(first.status, 201);
    let round = "/v1/guest-tabs/1/commands/order-round";
    app.post(round, &json!({"items": ["ale"]})).await;
    let again = app.post_with("/v1/guest-tabs", &tab("1"), &[("idempotency-key", "\"k\"")]).await;
    same_answer(&first, &again);

    let items = json!({"items": ["ale"]});
    let first = app.post_with(round, &items, &[("idempotency-key", "k")]).await;
    assert_eq!(first.status, 200, "the same key on another route is another key");
    let again = app.post_with(round, &items, &[("idempotency-key", "k")]).await;
    same_answer(&first, &again);
    let history = app.get("/v1/guest-tabs/1/history").await;
    assert_eq!(history.json["data"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn an_id_made_by_the_server_follows_from_the_key() {
    let app = App::start().await;
    let body = json!({"guest": "ann", "limit": 100});
    let first = app.post_with("/v1/guest-tabs", &body, &[("idempotency-key", "k")]).await;
    let again = app.post_with("/v1/guest-tabs", &body, &[("idempotency-key", "k")]).await;
    assert_eq!(first.status, 201);
    same_answer(&first, &again);
    let other = app.post_with("/v1/guest-tabs", &body, &[("idempotency-key", "l")]).await;
    assert_eq!(other.status, 201);
    assert_ne!(first.json["tab_id"], other.json["tab_id"]);
}

#[tokio::test]
async fn refusals_are_kept_and_syntax_errors_are_not() {
    let app = App::start().await;
    let round = "/v1/guest-tabs/1/commands/order-round";
    let key = [("idempotency-key", "k")];
    app.post_with(round, &json!({"items": 7}), &key).await.is_problem(422, "invalid-body");
    let items = json!({"items": ["ale"]});
    let first = app.post_with(round, &items, &key).await;
    first.is_problem(409, "tab-not-open");
    app.post("/v1/guest-tabs", &tab("1")).await;
    let again = app.post_with(round, &items, &key).await;
    again.is_problem(409, "tab-not-open");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let without_trace = |answer: &Answer| {
        let mut json = answer.json.clone();
        json.as_object_mut().expect("an object").remove("trace_id");
        json
    };
    assert_eq!(without_trace(&first), without_trace(&again));
    // Keys come before preconditions.
    let old = [("idempotency-key", "k"), ("if-match", "\"9\"")];
    app.post_with(round, &items, &old).await.is_problem(409, "tab-not-open");
    app.post_with(round, &items, &[("idempotency-key", "l"), ("if-match", "\"9\"")])
        .await
        .is_problem(412, "version-mismatch");
    let later = app.post_with(round, &items, &[("idempotency-key", "l")]).await;
    assert_eq!(later.status, 200, "a failed precondition uses no key up");
}

#[tokio::test]
async fn another_request_under_the_key_is_refused() {
    let app = App::start().await;
    let key = [("idempotency-key", "k")];
    assert_eq!(app.post_with("/v1/guest-tabs", &tab("1"), &key).await.status, 201);
    let reused = app.post_with("/v1/guest-tabs", &tab("2"), &key).await;
    reused.is_problem(422, "idempotency-key-reused");
    app.post("/v1/guest-tabs", &tab("2")).await;
    let items = json!({"items": []});
    let one = app.post_with("/v1/guest-tabs/1/commands/order-round", &items, &key).await;
    assert_eq!(one.status, 200);
    let two = app.post_with("/v1/guest-tabs/2/commands/order-round", &items, &key).await;
    two.is_problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn a_key_in_progress_is_told_so() {
    let app = App::start().await;
    let stopped = app.stop_appends().await;
    let key = [("idempotency-key", "k")];
    let body = tab("1");
    let first = app.post_with("/v1/guest-tabs", &body, &key);
    let second = async {
        stopped.until_one_waits().await;
        let told = app.post_with("/v1/guest-tabs", &body, &key).await;
        stopped.release().await;
        told
    };
    let (first, told) = tokio::join!(first, second);
    assert_eq!(first.status, 201, "{first:?}");
    told.is_problem(409, "idempotency-key-in-progress");
    assert!(told.header("retry-after").is_some());
    same_answer(&first, &app.post_with("/v1/guest-tabs", &body, &key).await);
}

#[tokio::test]
async fn the_same_key_many_times_at_once_has_one_effect() {
    let app = App::start().await;
    let body = json!({"guest": "ann", "limit": 100});
    let key = [("idempotency-key", "k")];
    let all = (0..20).map(|_| app.post_with("/v1/guest-tabs", &body, &key));
    let answers = futures_util::future::join_all(all).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(made.iter().filter(|a| a.header("idempotency-replayed").is_none()).count(), 1);
    assert!(made.iter().all(|answer| answer.body == made[0].body));
    for told in answers.iter().filter(|answer| answer.status != 201) {
        told.is_problem(409, "idempotency-key-in-progress");
    }
    let path = format!("{}/history", made[0].header("location").expect("it was created"));
    assert_eq!(app.get(&path).await.json["data"].as_array().map(Vec::len), Some(1));
}
