//! The generated contracts, the page to try them, the operators' port.

use serde_json::Value;
use system_tests::models::MODELS;
use system_tests::shop::shared;

#[tokio::test]
async fn the_openapi_document_names_every_route() {
    let shop = shared().await;
    let api = shop.api();
    let document = api.get("/openapi.json").await;
    let openapi = document.expect(200).json();
    assert!(openapi["openapi"].as_str().is_some_and(|v| v.starts_with("3.1.")), "{openapi}");
    let mut expected = vec![
        ("/v1/invoices".to_owned(), vec!["get", "post"]),
        ("/v1/invoices/{}".to_owned(), vec!["get"]),
        ("/v1/credit-notes".to_owned(), vec!["post"]),
        ("/v1/sales_by_day/{}/{}/{}".to_owned(), vec!["get"]),
        ("/v1/sales_by_product/{}/{}".to_owned(), vec!["get"]),
        ("/v1/sales_by_customer/{}/{}".to_owned(), vec!["get"]),
    ];
    expected.extend(MODELS.iter().map(|m| (format!("/v1/{}", m.name), vec!["get"])));
    for (aggregate, command) in
        [("invoices", "issue-invoice"), ("credit-notes", "issue-credit-note")]
    {
        let route = |rest: &str| format!("/v1/{aggregate}/{{}}/{rest}");
        expected.push((route("history"), vec!["get"]));
        expected.push((route("state"), vec!["get"]));
        expected.push((route(&format!("commands/{command}")), vec!["post"]));
    }
    let paths = openapi["paths"].as_object().expect("it has paths");
    for (route, methods) in expected {
        let item = paths.iter().find(|(path, _)| nameless(path) == route);
        let (path, item) =
            item.unwrap_or_else(|| panic!("no {route} in {:?}", paths.keys().collect::<Vec<_>>()));
        for method in methods {
            assert!(item[method]["responses"].is_object(), "{method} {path}: {item}");
        }
    }
    references_lead_somewhere(&openapi, &openapi);
}

/// The path without the names of its parameters.
fn nameless(path: &str) -> String {
    let segment = |s: &str| if s.starts_with('{') { "{}".to_owned() } else { s.to_owned() };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn references_lead_somewhere(document: &Value, at: &Value) {
    match at {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("nothing is elsewhere");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|value| references_lead_somewhere(document, value));
        }
        Value::Array(items) => {
            items.iter().for_each(|value| references_lead_somewhere(document, value));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_docs_page_loads_nothing_from_elsewhere() {
    let shop = shared().await;
    let page = shop.api().get("/docs").await;
    assert!(page.expect(200).need("content-type").starts_with("text/html"));
    let html = String::from_utf8(page.body.clone()).expect("it is UTF-8");
    assert!(html.contains("openapi.json"), "it shows the contract");
    for attribute in ["src=", "href=", "url(", "import ", "fetch(", "action="] {
        for (at, _) in html.match_indices(attribute) {
            let rest = html[at + attribute.len()..].trim_start_matches(['"', '\'', '`', ' ']);
            let elsewhere = ["http:", "https:", "//"].iter().any(|p| rest.starts_with(p));
            assert!(!elsewhere, "{}", rest.chars().take(80).collect::<String>());
        }
    }
}

#[tokio::test]
async fn problems_lead_to_their_explanation() {
    let shop = shared().await;
    let api = shop.api();
    let problem = api.get("/v1/nothing").await.problem(404, "not-found");
    let explained = api.get(problem["type"].as_str().expect("a path")).await;
    assert_eq!(explained.expect(200).json()["code"], "not-found");
}

#[tokio::test]
async fn the_admin_port_says_how_it_is() {
    let shop = shared().await;
    let admin = shop.admin();
    for probe in ["/livez", "/startupz", "/readyz"] {
        let answer = admin.get(probe).await;
        assert_eq!(answer.expect(200).json()["status"], "ok", "{}", answer.shown());
    }
    let checks = admin.get("/readyz").await.json();
    let names: Vec<String> = checks["checks"]
        .as_object()
        .map(|checks| checks.keys().map(|name| name.to_lowercase()).collect())
        .unwrap_or_default();
    for wanted in ["invoicing", "kafka", "registry", "read"] {
        assert!(names.iter().any(|name| name.contains(wanted)), "{wanted} is not in {names:?}");
    }
    // Something happens first, so that there is something to count.
    let id = system_tests::documents::new_id();
    shop.api().post("/v1/invoices", &system_tests::documents::invoice(&id)).await.expect(201);
    let metrics = String::from_utf8(admin.get("/metrics").await.expect(200).body.clone());
    let metrics = metrics.expect("metrics are text");
    for name in [
        "commands_total",
        "command_duration_seconds",
        "append_batch_size",
        "outbox_pending_events",
        "outbox_oldest_age_seconds",
        "relay_published_total",
        "projection_lag_events",
        "projection_lag_seconds",
        "projection_apply_duration_seconds",
        "projection_state",
        "db_pool_wait_seconds",
        "shed_requests_total",
        "http_server_request_duration_seconds",
        "build_info",
        "append_conflicts_total",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "no {name} in {metrics}");
    }
}
