//! History and state.

use crate::server::{App, tab};
use foldstream_core::Uuid;
use serde_json::json;

#[tokio::test]
async fn a_history_tells_who_why_and_when() {
    let app = App::start().await;
    let headers = [
        ("x-correlation-id", "evening-17"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    app.post_with("/v1/guest-tabs", &tab("1"), &headers).await;
    app.post("/v1/guest-tabs/1/commands/order-round", &json!({"items": ["ale"]})).await;
    let history = app.get("/v1/guest-tabs/1/history").await;
    assert_eq!(history.status, 200);
    let opened = &history.json["data"][0];
    assert_eq!((&opened["version"], &opened["type"]), (&1.into(), &"TabOpened".into()));
    assert_eq!(opened["data"], json!({"guest": "ann", "limit": 100}));
    assert_eq!(opened["actor"], "anonymous");
    assert!(opened["causation"].as_str().is_some_and(|id| Uuid::parse_str(id).is_ok()));
    assert_eq!(opened["correlation"], "evening-17");
    assert_eq!(opened["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(opened["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert!(opened["id"].is_string() && opened["position"].is_u64());
    let ordered = &history.json["data"][1];
    assert_eq!((&ordered["type"], &ordered["version"]), (&"Ordered".into(), &2.into()));
    assert_eq!(ordered["correlation"], ordered["trace_id"], "the trace, where none is given");
    assert_eq!(history.json["page"], json!({"next": null, "prev": null, "has_more": false}));
}

#[tokio::test]
async fn a_history_has_pages() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    let items: Vec<_> = (0..9).map(|n| format!("item {n}")).collect();
    app.post("/v1/guest-tabs/1/commands/order-round", &json!({"items": items})).await;
    let (mut from, mut seen) = (Some("1".to_owned()), Vec::new());
    while let Some(start) = from {
        let page = app.get(&format!("/v1/guest-tabs/1/history?from={start}&limit=4")).await;
        let versions = page.json["data"].as_array().expect("a list").iter();
        seen.extend(versions.map(|entry| entry["version"].as_u64().expect("a number")));
        from = page.json["page"]["next"].as_str().map(str::to_owned);
        assert_eq!(page.json["page"]["has_more"], from.is_some());
    }
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    let middle = app.get("/v1/guest-tabs/1/history?from=5&limit=4").await;
    let page = json!({"next": "9", "prev": "1", "has_more": true});
    assert_eq!(middle.json["page"], page);
    let exact = app.get("/v1/guest-tabs/1/history?from=7&limit=4").await;
    assert_eq!(exact.json["page"]["next"], json!(null));
    let past = app.get("/v1/guest-tabs/1/history?from=11").await;
    assert_eq!((past.status, &past.json["data"]), (200, &json!([])));
}

#[tokio::test]
async fn a_state_is_now_or_before() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    app.post("/v1/guest-tabs/1/commands/order-round", &json!({"items": ["ale", "pie"]})).await;
    let latest = app.get("/v1/guest-tabs/1/state").await;
    assert_eq!((latest.status, latest.header("etag")), (200, Some("\"3\"")));
    let opened = json!({"guest": "ann", "limit": 100});
    let state = |items: i64| json!({"status": "open", "opened": opened, "items": items});
    let expected = json!({"stream": "guest-tabs/1", "version": 3, "state": state(2)});
    assert_eq!(latest.json, expected);
    let before = app.get("/v1/guest-tabs/1/state?version=2").await;
    assert_eq!((&before.json["version"], &before.json["state"]), (&2.into(), &state(1)));
    let beyond = app.get("/v1/guest-tabs/1/state?version=4").await;
    beyond.is_problem(404, "not-found");
    assert_eq!(beyond.json["current_version"], 3);

    let history = app.get("/v1/guest-tabs/1/history").await;
    let time = history.json["data"][0]["time"].as_str().expect("a text");
    let then = app.get(&format!("/v1/guest-tabs/1/state?as_of={time}")).await;
    assert_eq!(then.json["version"], 1);
    let far = app.get("/v1/guest-tabs/1/state?as_of=9999-12-31T23:59:59Z").await;
    assert_eq!(far.json["version"], 3);
    let early = app.get("/v1/guest-tabs/1/state?as_of=0001-01-01T00:00:00Z").await;
    early.is_problem(404, "not-found");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let app = App::start().await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    for query in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e3",
        "limit=",
        "limit=1&limit=1",
        "from=0",
        "from=x",
        "from=9223372036854775808",
        "page=2",
        "limit=%zz",
    ] {
        let answer = app.get(&format!("/v1/guest-tabs/1/history?{query}")).await;
        answer.is_problem(400, "invalid-query");
    }
    assert_eq!(app.get("/v1/guest-tabs/1/history?limit=500").await.status, 200);
    for query in [
        "version=0",
        "version=x",
        "version=1&version=1",
        "as_of=today",
        "as_of=2010-12-01",
        "as_of=2010-12-01T08:26:00%2B01:00",
        "version=1&as_of=2010-12-01T08:26:00Z",
        "until=1",
    ] {
        let answer = app.get(&format!("/v1/guest-tabs/1/state?{query}")).await;
        answer.is_problem(400, "invalid-query");
    }
    for what in ["history", "history?from=2", "state", "state?version=1"] {
        for id in ["2", "X1"] {
            app.get(&format!("/v1/guest-tabs/{id}/{what}")).await.is_problem(404, "not-found");
        }
        app.get(&format!("/v1/guest-tabs/a%20b/{what}")).await.is_problem(400, "invalid-path");
    }
}
