//! Creating, commanding, refusals by rules.

use crate::server::{App, tab};
use serde_json::json;

#[tokio::test]
async fn a_creating_command_creates_once() {
    let app = App::start().await;
    let body = tab("17");
    let first = app.post("/v1/guest-tabs", &body).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.header("location"), Some("/v1/guest-tabs/17"));
    assert_eq!(first.header("etag"), Some("\"1\""));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert!(first.header("consistency-token").is_some());
    assert!(first.header("x-trace-id").is_some());
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(first.json["stream"], "guest-tabs/17");
    assert_eq!(first.json["tab_id"], "17");
    assert_eq!(first.json["version"], 1);
    assert_eq!(first.json["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(first.json["events"][0]["type"], "TabOpened");
    assert_eq!(first.json["events"][0]["version"], 1);
    assert!(first.json["events"][0]["id"].is_string());

    let again = app.post("/v1/guest-tabs", &body).await;
    assert_eq!(again.status, 200);
    assert_eq!((again.header("location"), again.header("etag")), (None, Some("\"1\"")));
    assert!(again.header("consistency-token").is_some(), "a no-op rests on a position too");
    let nothing = json!({"stream": "guest-tabs/17", "tab_id": "17", "version": 1, "events": []});
    assert_eq!(again.json, nothing);

    let mut other = body.clone();
    other["limit"] = 7.into();
    let refused = app.post("/v1/guest-tabs", &other).await;
    refused.is_problem(409, "tab-exists");
    assert!(refused.header("consistency-token").is_some(), "a refusal rests on a position too");
}

#[tokio::test]
async fn an_id_is_made_where_none_is_given() {
    let app = App::start().await;
    let mut body = tab("");
    body.as_object_mut().expect("an object").remove("tab_id");
    let (one, two) =
        (app.post("/v1/guest-tabs", &body).await, app.post("/v1/guest-tabs", &body).await);
    assert_eq!((one.status, two.status), (201, 201));
    let id = one.json["tab_id"].as_str().expect("a text").to_owned();
    assert!(id.starts_with('T') && id.len() == 37, "{id}");
    assert_eq!(one.json["stream"], format!("guest-tabs/{id}"));
    assert_eq!(one.header("location"), Some(&*format!("/v1/guest-tabs/{id}")));
    assert_ne!(one.json["tab_id"], two.json["tab_id"]);
}

#[tokio::test]
async fn any_command_goes_to_its_stream() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let round = "/v1/guest-tabs/1/commands/order-round";
    let done = app.post(round, &json!({"items": ["ale", "pie"]})).await;
    assert_eq!((done.status, done.header("etag")), (200, Some("\"3\"")));
    assert_eq!(done.json["version"], 3);
    assert_eq!(done.json["events"][0]["version"], 2);
    assert_eq!(done.json["events"][1]["type"], "Ordered");
    assert_ne!(done.json["events"][0]["id"], done.json["events"][1]["id"]);

    let nothing = app.post(round, &json!({"items": []})).await;
    assert_eq!((nothing.status, &nothing.json["version"]), (200, &3.into()));
    assert_eq!(nothing.json["events"], json!([]));

    let same_id = app.post(round, &json!({"items": ["ale"], "tab_id": "1"})).await;
    assert_eq!(same_id.status, 200);
    let other_id = app.post(round, &json!({"items": ["ale"], "tab_id": "2"})).await;
    other_id.is_problem(422, "invalid-body").is_about("/tab_id", "other-id");

    // The creating command has this way, too; here it is no creation of a resource.
    let body = json!({"guest": "b", "limit": 1});
    let opened = app.post("/v1/guest-tabs/2/commands/open-tab", &body).await;
    assert_eq!((opened.status, opened.header("location")), (200, None));
}

#[tokio::test]
async fn rules_answer_with_code_and_pointer() {
    let app = App::start().await;
    let mut body = tab("1");
    body["limit"] = (-1).into();
    let refused = app.post("/v1/guest-tabs", &body).await;
    refused.is_problem(422, "limit-out-of-range").is_about("/limit", "limit-out-of-range");
    assert_eq!(refused.json["detail"], "a limit is not negative");
    assert_eq!(refused.json["trace_id"].as_str(), refused.header("x-trace-id"));

    let round = "/v1/guest-tabs/1/commands/order-round";
    app.post(round, &json!({"items": ["ale"]})).await.is_problem(409, "tab-not-open");
    app.post("/v1/guest-tabs", &tab("1")).await;
    let refused = app.post(round, &json!({"items": ["ale", ""]})).await;
    refused.is_problem(422, "no-name").is_about("/items/1", "no-name");
    assert!(refused.header("consistency-token").is_some());
}

#[tokio::test]
async fn tokens_hold_what_was_seen_before() {
    let app = App::start().await;
    let one = app.post("/v1/guest-tabs", &tab("1")).await;
    let first = one.header("consistency-token").expect("a token").to_owned();
    let two = app.post_with("/v1/guest-tabs", &tab("2"), &[("consistency-token", &first)]).await;
    assert_eq!(two.status, 201);
    let merged = two.token();
    assert_eq!(merged.streams.len(), 2);
    for (partition, position) in &one.token().positions {
        assert!(merged.positions.get(partition) >= Some(position));
    }
}
