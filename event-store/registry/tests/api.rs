//! The registry's API over a real socket and a real Postgres.

mod support;

use foldstream_testkit::database;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use support::{Server, code, record};

const A: &str = r#"{"name":"a","type":"int"}"#;
const A_B: &str = r#"{"name":"a","type":"int"},{"name":"b","type":"string","default":""}"#;
const A_C: &str = r#"{"name":"a","type":"int"},{"name":"c","type":"string"}"#;

#[tokio::test]
async fn a_schema_is_registered_once_and_found_every_way() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    assert_eq!(server.get("/subjects").await, (StatusCode::OK, json!([])));
    let id = server.register("sold", &record(A)).await;
    assert_eq!(id, 1);
    // Again, laid out differently, and under another subject: the same schema.
    let spaced = record(A).replace(':', " :  ").replace(',', ",\n");
    assert_eq!(server.register("sold", &spaced).await, 1);
    assert_eq!(server.register("other", &record(A)).await, 1);
    assert_eq!(server.register("sold", &record(A_B)).await, 2);

    let first = json!({ "subject": "sold", "version": 1, "id": 1, "schema": record(A) });
    let second = json!({ "subject": "sold", "version": 2, "id": 2, "schema": record(A_B) });
    for (path, expected) in [
        ("/subjects", json!(["other", "sold"])),
        ("/subjects?subjectPrefix=so", json!(["sold"])),
        ("/subjects?subjectPrefix=%25", json!([])),
        ("/subjects?subjectPrefix=:*:", json!(["other", "sold"])),
        ("/subjects/sold/versions", json!([1, 2])),
        ("/subjects/sold/versions/1", first.clone()),
        ("/subjects/sold/versions/latest", second.clone()),
        ("/subjects/sold/versions/-1", second.clone()),
        ("/schemas/ids/2", json!({ "schema": record(A_B) })),
        ("/schemas/ids/1/subjects", json!(["other", "sold"])),
        (
            "/schemas/ids/1/versions",
            json!([{"subject": "other", "version": 1}, {"subject": "sold", "version": 1}]),
        ),
        ("/schemas/types", json!(["AVRO"])),
        ("/mode", json!({ "mode": "READWRITE" })),
        ("/", json!({})),
    ] {
        assert_eq!(server.get(path).await, (StatusCode::OK, expected), "{path}");
    }
    let text: Value = serde_json::from_str(&record(A)).expect("JSON");
    assert_eq!(server.get("/subjects/sold/versions/1/schema").await.1, text);
    assert_eq!(server.get("/schemas/ids/1/schema").await.1, text);
    let found = server.post_schema("/subjects/sold", &spaced).await;
    assert_eq!(found, (StatusCode::OK, first));
}

#[tokio::test]
async fn a_subject_may_hold_any_printable_text() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    for (number, path) in
        ["a%2Fb", "%C3%A4%20%F0%9F%9B%92", "'%3Bdrop%20table", "..%2F"].into_iter().enumerate()
    {
        server.register(path, &record(A)).await;
        let (status, found) = server.get(&format!("/subjects/{path}/versions/latest")).await;
        assert_eq!((status, &found["version"]), (StatusCode::OK, &json!(1)), "{path}");
        let (_, all) = server.get("/subjects").await;
        assert_eq!(all.as_array().map(Vec::len), Some(number + 1));
    }
}

#[tokio::test]
async fn registering_at_once_neither_doubles_nor_skips() {
    let database = database("registry").await;
    let server = std::sync::Arc::new(Server::start(&database.url).await);
    let second = std::sync::Arc::new(Server::start(&database.url).await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..48 {
        let server = if number % 2 == 0 { server.clone() } else { second.clone() };
        calls.spawn(async move {
            // Twelve schemas, each from four callers, all under two subjects.
            let name = number % 12;
            let field = format!(r#"{{"name":"f{name}","type":"int","default":0}}"#);
            let subject = if number % 8 < 4 { "left" } else { "right" };
            (name, server.register(subject, &record(&field)).await)
        });
    }
    let mut ids = std::collections::BTreeMap::new();
    for (name, id) in calls.join_all().await {
        assert_eq!(*ids.entry(name).or_insert(id), id, "one id per schema");
    }
    let mut given: Vec<i64> = ids.into_values().collect();
    given.sort_unstable();
    assert_eq!(given, (1..=12).collect::<Vec<i64>>());
    for subject in ["left", "right"] {
        let (_, versions) = server.get(&format!("/subjects/{subject}/versions")).await;
        let count = versions.as_array().expect("versions").len() as i64;
        assert_eq!(versions, json!((1..=count).collect::<Vec<i64>>()));
    }
}

#[tokio::test]
async fn levels_are_kept_on_registering_and_on_asking() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let ask = "/compatibility/subjects/sold/versions";
    // Nothing there yet: anything may be the first.
    let yes = (StatusCode::OK, json!({ "is_compatible": true }));
    assert_eq!(server.post_schema(&format!("{ask}/latest"), &record(A)).await, yes);
    assert_eq!(server.post_schema(ask, &record(A)).await, yes);

    server.register("sold", &record(A)).await;
    let refused = server.post_schema("/subjects/sold/versions", &record(A_C)).await;
    assert_eq!(code(&refused), (409, 409));
    let message = refused.1["message"].as_str().expect("a message");
    assert!(message.contains("'c'") && message.contains("BACKWARD"), "{message}");
    assert_eq!(server.get("/subjects/sold/versions").await.1, json!([1]));
    for path in [ask.to_owned(), format!("{ask}/1"), format!("{ask}/latest")] {
        let (_, verdict) = server.post_schema(&format!("{path}?verbose=true"), &record(A_C)).await;
        assert_eq!(verdict["is_compatible"], json!(false));
        assert_eq!(verdict["messages"].as_array().map(Vec::len), Some(3), "{verdict}");
    }

    // Forward is the other way round: c may come, and then not go.
    server.set_level("sold", "FORWARD").await;
    server.register("sold", &record(A_C)).await;
    let back = server.post_schema("/subjects/sold/versions", &record(A_B)).await;
    assert_eq!(code(&back), (409, 409));

    // The latest alone, or all of them: c with a default reads version 2 but must read 1 as well.
    server.set_level("sold", "NONE").await;
    server.register("sold", r#""long""#).await;
    server.set_level("sold", "BACKWARD").await;
    let double = server.post_schema(&format!("{ask}?verbose=false"), r#""double""#).await;
    assert_eq!(double, yes);
    server.set_level("sold", "BACKWARD_TRANSITIVE").await;
    let double = server.post_schema(ask, r#""double""#).await;
    assert_eq!(double.1, json!({ "is_compatible": false }));
    assert_eq!(server.post_schema(&format!("{ask}/3"), r#""double""#).await, yes);
    let missing = server.post_schema(&format!("{ask}/9"), r#""double""#).await;
    assert_eq!(code(&missing), (404, 40402));
}

#[tokio::test]
async fn a_level_belongs_to_a_subject_or_to_all() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let level = |name: &str| (StatusCode::OK, json!({ "compatibilityLevel": name }));
    assert_eq!(server.get("/config").await, level("BACKWARD"));
    assert_eq!(code(&server.get("/config/sold").await), (404, 40408));
    assert_eq!(server.get("/config/sold?defaultToGlobal=true").await, level("BACKWARD"));
    let body = Some(json!({ "compatibility": "full" }));
    let set = server.send(Method::PUT, "/config", body).await;
    assert_eq!(set, (StatusCode::OK, json!({ "compatibility": "FULL" })));
    assert_eq!(server.get("/config").await, level("FULL"));
    assert_eq!(server.get("/config/sold?defaultToGlobal=true").await, level("FULL"));
    server.set_level("sold", "NONE").await;
    assert_eq!(server.get("/config/sold").await, level("NONE"));
    assert_eq!(server.delete("/config/sold").await, level("NONE"));
    assert_eq!(code(&server.get("/config/sold").await), (404, 40408));
    assert_eq!(code(&server.delete("/config/sold").await), (404, 40401));
    assert_eq!(server.delete("/config").await, level("FULL"));
    assert_eq!(server.get("/config").await, level("BACKWARD"));
    for body in [json!({ "compatibility": "LOUD" }), json!({ "compatibility": null }), json!({})] {
        let refused = server.send(Method::PUT, "/config/sold", Some(body)).await;
        assert_eq!(code(&refused), (422, 42203));
    }
}

#[tokio::test]
async fn deleting_is_soft_first_and_ids_outlive_it() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    server.register("sold", &record(A)).await;
    server.register("sold", &record(A_B)).await;
    let one = "/subjects/sold/versions/1";
    assert_eq!(code(&server.delete(&format!("{one}?permanent=true")).await), (404, 40407));
    assert_eq!(server.delete(one).await, (StatusCode::OK, json!(1)));
    assert_eq!(code(&server.delete(one).await), (404, 40406));
    assert_eq!(code(&server.get(one).await), (404, 40402));
    assert_eq!(server.get(&format!("{one}?deleted=true")).await.1["deleted"], json!(true));
    assert_eq!(server.get("/subjects/sold/versions").await.1, json!([2]));
    assert_eq!(server.get("/subjects/sold/versions?deleted=true").await.1, json!([1, 2]));
    assert_eq!(server.get("/subjects/sold/versions?deletedOnly=true").await.1, json!([1]));
    assert_eq!(server.get("/schemas/ids/1/versions").await.1, json!([]));
    assert_eq!(code(&server.post_schema("/subjects/sold", &record(A)).await), (404, 40403));
    let found = server.post_schema("/subjects/sold?deleted=true", &record(A)).await;
    assert_eq!(found.1["version"], json!(1));
    // A deleted schema that comes back is a new version with its old id.
    assert_eq!(server.register("sold", &record(A)).await, 1);
    assert_eq!(server.get("/subjects/sold/versions").await.1, json!([2, 3]));
    assert_eq!(server.delete(&format!("{one}?permanent=true")).await.1, json!(1));
    assert_eq!(code(&server.delete(one).await), (404, 40402));

    server.set_level("sold", "NONE").await;
    assert_eq!(code(&server.delete("/subjects/sold?permanent=true").await), (404, 40405));
    assert_eq!(server.delete("/subjects/sold").await, (StatusCode::OK, json!([2, 3])));
    assert_eq!(code(&server.delete("/subjects/sold").await), (404, 40404));
    assert_eq!(code(&server.get("/config/sold").await), (404, 40408));
    assert_eq!(server.get("/subjects").await.1, json!([]));
    assert_eq!(server.get("/subjects?deleted=true").await.1, json!(["sold"]));
    assert_eq!(server.get("/subjects?deletedOnly=true").await.1, json!(["sold"]));
    assert_eq!(server.delete("/subjects/sold?permanent=true").await.1, json!([2, 3]));
    assert_eq!(server.get("/subjects?deleted=true").await.1, json!([]));
    assert_eq!(code(&server.delete("/subjects/sold").await), (404, 40401));
    // Records in topics go on naming the ids; a new schema gets a new one.
    assert_eq!(server.get("/schemas/ids/2").await.0, StatusCode::OK);
    assert_eq!(server.register("sold", r#""string""#).await, 3);
    assert_eq!(server.get("/subjects/sold/versions").await.1, json!([1]));
}

#[tokio::test]
async fn every_wrong_request_gets_its_code() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    server.register("sold", &record(A)).await;
    let post = "/subjects/sold/versions";
    let long_subject = format!("/subjects/{}/versions", "x".repeat(513));
    for (path, expected) in [
        ("/subjects/none/versions", (404, 40401)),
        ("/subjects/none/versions/1", (404, 40401)),
        ("/subjects/none/versions/latest", (404, 40401)),
        ("/subjects/sold/versions/2", (404, 40402)),
        ("/subjects/sold/versions/2147483647", (404, 40402)),
        ("/subjects/sold/versions/2147483648", (422, 42202)),
        ("/subjects/sold/versions/0", (422, 42202)),
        ("/subjects/sold/versions/-2", (422, 42202)),
        ("/subjects/sold/versions/newest", (422, 42202)),
        ("/schemas/ids/99", (404, 40403)),
        ("/schemas/ids/99/versions", (404, 40403)),
        ("/schemas/ids/x", (404, 404)),
        ("/schemas/ids/99999999999", (404, 404)),
        ("/subjects/a%00b/versions", (422, 42208)),
        ("/subjects/a%0Ab/versions", (422, 42208)),
        ("/subjects/%FF/versions", (400, 400)),
        ("/subjects?subjectPrefix=%00", (422, 42208)),
        (&long_subject, (422, 42208)),
        ("/mode/sold", (404, 40409)),
        ("/nowhere", (404, 404)),
    ] {
        assert_eq!(code(&server.get(path).await), expected, "{path}");
    }
    for (body, expected) in [
        (json!({}), (422, 42201)),
        (json!({ "schema": null }), (422, 42201)),
        (json!({ "schema": " " }), (422, 42201)),
        (json!({ "schema": "{" }), (422, 42201)),
        (json!({ "schema": "int" }), (422, 42201)),
        (json!({ "schema": "\"Unknown\"" }), (422, 42201)),
        (json!({ "schema": "{\"type\":\"record\",\"name\":\"A\"}" }), (422, 42201)),
        (json!({ "schema": record(&format!("{A},{A}")) }), (422, 42201)),
        (json!({ "schema": record(r#"{"name":"a","type":"int","default":"x"}"#) }), (422, 42201)),
        (json!({ "schema": "\"int\"", "schemaType": "JSON" }), (422, 42201)),
        (json!({ "schema": "\"int\"", "references": [{"name": "x"}] }), (422, 42201)),
        (json!({ "schema": "\"int\"", "ruleSet": {} }), (422, 42201)),
        (json!({ "schema": "\"int\"", "id": 7 }), (422, 42205)),
        (json!({ "schema": 7 }), (400, 400)),
        (json!([]), (400, 400)),
    ] {
        let refused = server.send(Method::POST, post, Some(body.clone())).await;
        assert_eq!(code(&refused), expected, "{body}");
    }
    assert_eq!(code(&server.send(Method::PUT, "/subjects", None).await), (405, 405));
    assert_eq!(server.get("/subjects/sold/versions").await.1, json!([1]));
}

#[tokio::test]
async fn bodies_are_bounded_and_typed() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let client = Client::new();
    let url = format!("{}/subjects/sold/versions", server.url);
    for (kind, expected) in [
        (Some("application/json; charset=utf-8"), 200),
        (Some("Application/vnd.schemaregistry+JSON"), 200),
        (None, 200),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
    ] {
        let mut request = client.post(&url).body(r#"{"schema":"\"int\""}"#);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let status = request.send().await.expect("an answer").status();
        assert_eq!(status.as_u16(), expected, "{kind:?}");
    }
    let large = "x".repeat(1024 * 1024 + 1);
    let stated = server.post_schema("/subjects/sold/versions", &large).await;
    assert_eq!(code(&stated), (413, 413));
    let deep = format!("{}\"int\"{}", "[".repeat(100_000), "]".repeat(100_000));
    let refused = server.post_schema("/subjects/sold/versions", &deep).await;
    assert_eq!(code(&refused), (422, 42201));
    // Each type holds the one before twice, with defaults that would be written out.
    let mut doubling = r#"[{"type":"record","name":"T0","fields":[]}"#.to_owned();
    for n in 1..60 {
        let inner = n - 1;
        doubling += &format!(
            r#",{{"type":"record","name":"T{n}","fields":[
                {{"name":"l","type":"T{inner}","default":{{}}}},
                {{"name":"r","type":"T{inner}","default":{{}}}}]}}"#
        );
    }
    doubling.push(']');
    let refused = server.post_schema("/subjects/sold/versions", &doubling).await;
    assert_eq!(code(&refused), (422, 42201));
}

#[tokio::test]
async fn several_registries_open_one_database_and_ids_go_on() {
    let database = database("registry").await;
    foldstream_registry::migrate(&database.url).await.expect("migrated");
    let (first, second) = tokio::join!(Server::start(&database.url), Server::start(&database.url));
    assert_eq!(first.register("sold", &record(A)).await, 1);
    assert_eq!(second.register("sold", &record(A)).await, 1);
    drop((first, second));
    let again = Server::start(&database.url).await;
    assert_eq!(again.register("sold", &record(A_B)).await, 2);
    again.registry.check().await.expect("ready");
}
