//! Commands that lead to very much: all of it at once or nothing, and then read in parts.

use crate::server::{App, Setup, tab};
use foldstream_commands::Options;
use serde_json::json;

const ROUND: &str = "/v1/guest-tabs/1/commands/order-round";

/// All versions of a history, page by page, and how many pages it took.
async fn pages(app: &App, limit: u32) -> (Vec<u64>, usize) {
    let (mut from, mut versions, mut pages) = ("1".to_owned(), Vec::new(), 0);
    loop {
        let path = format!("/v1/guest-tabs/1/history?from={from}&limit={limit}");
        let page = app.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let data = page.json["data"].as_array().expect("a list");
        versions.extend(data.iter().map(|event| event["version"].as_u64().expect("a number")));
        pages += 1;
        match page.json["page"]["next"].as_str() {
            Some(next) => from = next.to_owned(),
            None => return (versions, pages),
        }
    }
}

#[tokio::test]
async fn ten_thousand_events_of_one_command_are_one_append() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let items: Vec<String> = (0..10_000).map(|n| format!("item {n}")).collect();
    let key = [("idempotency-key", "all"), ("if-match", "\"1\"")];
    let done = app.post_with(ROUND, &json!({ "items": items }), &key).await;
    assert_eq!(done.status, 200, "{:.300}", done.body);
    assert_eq!(done.json["version"], 10_001);
    assert_eq!(done.json["events"].as_array().map(Vec::len), Some(10_000));
    let (versions, pages) = pages(&app, 500).await;
    assert_eq!(versions, (1..=10_001).collect::<Vec<_>>());
    assert_eq!(pages, 21);
    let state = app.get("/v1/guest-tabs/1/state").await;
    assert_eq!(
        (&state.json["version"], &state.json["state"]["items"]),
        (&json!(10_001), &json!(10_000),)
    );
    let middle = app.get("/v1/guest-tabs/1/state?version=5001").await;
    assert_eq!(middle.json["state"]["items"], 5_000);
    // One transaction, so one instant; the same request again has its answer.
    let mut table = app.connect().await;
    let commits: i64 =
        sqlx::query_scalar("select count(distinct xmin::text) from events where version > 1")
            .fetch_one(&mut table)
            .await
            .expect("the table is there");
    assert_eq!(commits, 1);
    let again = app.post_with(ROUND, &json!({ "items": items }), &key).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{:.300}", again.body);
    assert_eq!(again.body, done.body);
}

#[tokio::test]
async fn more_than_a_command_may_hold_is_refused_whole() {
    let store = |options: &mut foldstream_postgres::StoreOptions| {
        options.limits.command_bytes = 64 << 10;
        options.limits.event_bytes = 4 << 10;
    };
    let app = App::start_as(Setup { store, ..Setup::default() }).await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let many: Vec<String> = (0..10_000).map(|n| format!("item {n}")).collect();
    let large = vec!["x".repeat(5_000)];
    for items in [many, large] {
        let refused = app.post(ROUND, &json!({ "items": items })).await;
        refused.is_problem(413, "body-too-large");
    }
    assert_eq!(pages(&app, 500).await.0, [1]);
    // What fits goes on.
    let few: Vec<String> = (0..100).map(|n| format!("item {n}")).collect();
    assert_eq!(app.post(ROUND, &json!({ "items": few })).await.json["version"], 101);
}

#[tokio::test]
async fn pages_of_large_events_are_short() {
    let options = Options { body_limit: 16 << 20, ..Options::default() };
    let app = App::start_as(Setup { options, ..Setup::default() }).await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let items = vec!["x".repeat(900_000); 12];
    let done = app.post(ROUND, &json!({ "items": items })).await;
    assert_eq!(done.json["version"], 13, "{:.300}", done.body);
    let page = app.get("/v1/guest-tabs/1/history?limit=500").await;
    assert!(page.body.len() < 6 << 20, "{} bytes", page.body.len());
    assert_eq!(page.json["page"]["has_more"], true);
    let (versions, pages) = pages(&app, 500).await;
    assert_eq!(versions, (1..=13).collect::<Vec<_>>());
    assert!((2..=4).contains(&pages), "{pages}");
}
