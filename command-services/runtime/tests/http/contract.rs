//! What is told of the API, and how it stands beside the routes of queries.

use crate::server::{App, tab};
use crate::tabs::Tab;
use axum::routing::get;
use foldstream_commands::{Service, openapi};
use serde_json::{Value, json};

fn service() -> Service {
    Service::new("tavern").aggregate::<Tab>()
}

#[test]
fn a_service_lists_its_aggregates() {
    let service = service();
    assert_eq!(service.name(), "tavern");
    let names: Vec<_> = service.aggregates().iter().map(|aggregate| aggregate.name()).collect();
    assert_eq!(names, ["guest-tabs"]);
}

#[test]
#[should_panic(expected = "registered twice")]
fn an_aggregate_is_registered_once() {
    let _ = service().aggregate::<Tab>();
}

/// Every reference in a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_command_is_an_operation() {
    let document = openapi([&service()]).expect("no conflicts").into_json();
    let create = &document["paths"]["/v1/guest-tabs"]["post"];
    assert_eq!(create["summary"], "Opens a tab; the same again changes nothing.");
    let body = create["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
    let body = document.pointer(body.expect("a reference").trim_start_matches('#'));
    let body = body.expect("the schema is there");
    assert_eq!(body["properties"]["tab_id"]["type"], "string");
    assert_eq!(body["properties"]["limit"]["type"], "integer");
    assert_eq!(body["required"], json!(["guest", "limit"]));
    assert_eq!(body["additionalProperties"], false);
    for status in
        ["200", "201", "400", "408", "409", "412", "413", "415", "422", "500", "503", "504"]
    {
        assert!(create["responses"][status].is_object(), "{status}");
    }
    let close = &document["paths"]["/v1/guest-tabs/{id}/commands/close-tab"]["post"];
    assert!(close["responses"]["428"].is_object());
    let parameters = close["parameters"].as_array().expect("a list").iter();
    let required: Vec<_> =
        parameters.filter(|p| p["required"] == true).map(|p| &p["name"]).collect();
    assert_eq!(required, ["id", "If-Match"]);
    for path in ["commands/open-tab", "commands/order-round"] {
        let path = format!("/v1/guest-tabs/{{id}}/{path}");
        assert!(document["paths"][&path]["post"]["responses"]["200"].is_object(), "{path}");
    }
    for path in ["history", "state"] {
        let path = format!("/v1/guest-tabs/{{id}}/{path}");
        assert!(document["paths"][&path]["get"]["responses"]["404"].is_object(), "{path}");
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn queries_share_the_paths() {
    let queries = axum::Router::new()
        .route("/v1/guest-tabs", get(async || "list"))
        .route("/v1/guest-tabs/changes", get(async || "changes"))
        .route("/v1/guest-tabs/{tab_id}", get(async || "one"));
    let app = App::start_beside(queries).await;
    assert_eq!(app.post("/v1/guest-tabs", &tab("1")).await.status, 201);
    for (path, body) in [("", "list"), ("/changes", "changes"), ("/1", "one")] {
        assert_eq!(app.get(&format!("/v1/guest-tabs{path}")).await.body, body);
    }
    assert_eq!(app.get("/v1/guest-tabs/1/history").await.status, 200);
}

#[tokio::test]
async fn commands_are_counted_by_what_became_of_them() {
    let app = App::start().await;
    let key = [("idempotency-key", "k")];
    app.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    app.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    app.post("/v1/guest-tabs", &tab("1")).await;
    app.post("/v1/guest-tabs", &json!({})).await;
    let mut other = tab("1");
    other["limit"] = 1.into();
    app.post("/v1/guest-tabs", &other).await;
    app.post_with("/v1/guest-tabs", &tab("1"), &[("if-none-match", "*")]).await;
    app.post("/v1/guest-tabs/1/commands/no-such", &json!({})).await;
    let text = app.metrics();
    let labels = r#"aggregate="guest-tabs",command="open-tab""#;
    for outcome in ["accepted", "replayed", "unchanged", "invalid", "refused", "precondition"] {
        let line = format!(r#"commands_total{{{labels},outcome="{outcome}"}} 1"#);
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let line = format!("command_duration_seconds_count{{{labels}}} 6");
    assert!(text.contains(&line), "{line}\n{text}");
    assert!(!text.contains("no-such"), "a client cannot make labels");
}
