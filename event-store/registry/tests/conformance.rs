//! What clients of a Confluent registry rely on, beyond the plain way: levels over several
//! versions, modes, lists and their parts, deletion and what it does to checks.

mod support;

use foldstream_testkit::database;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Server, code, record};

const A: &str = r#"{"name":"a","type":"int"}"#;
const LEVELS: [&str; 7] = [
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
];

fn ok(body: Value) -> (StatusCode, Value) {
    (StatusCode::OK, body)
}

/// Whether `last` may follow the others at each level, as `POST …/versions` decides.
async fn may_follow(server: &Server, hint: &str, earlier: &[&str], last: &str) -> Vec<bool> {
    let mut verdicts = Vec::new();
    for level in LEVELS {
        let subject = format!("{hint}-{level}");
        server.set_level(&subject, "NONE").await;
        for schema in earlier {
            server.register(&subject, schema).await;
        }
        server.set_level(&subject, level).await;
        // Asking and registering must agree.
        let ask = format!("/compatibility/subjects/{subject}/versions");
        let (status, asked) = server.post_schema(&ask, last).await;
        assert_eq!(status, StatusCode::OK, "{asked}");
        let path = format!("/subjects/{subject}/versions");
        let (status, answer) = server.post_schema(&path, last).await;
        let taken = match status {
            StatusCode::OK => true,
            StatusCode::CONFLICT => {
                assert_eq!(answer["error_code"], 409);
                let message = answer["message"].as_str().unwrap_or_default();
                assert!(message.contains(level), "{message}");
                false
            }
            _ => panic!("{status} {answer}"),
        };
        assert_eq!(asked["is_compatible"], json!(taken), "{subject}");
        verdicts.push(taken);
    }
    verdicts
}

#[tokio::test]
async fn each_level_judges_the_versions_that_it_names() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let optional =
        |name: &str| record(&format!(r#"{A},{{"name":"{name}","type":"int","default":0}}"#));
    let required = |name: &str| record(&format!(r#"{A},{{"name":"{name}","type":"int"}}"#));
    // The latest has `b` with a default, the one before has it not.
    let chain = [record(A), optional("b")];
    let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    let [yes, no] = [true, false];
    // To make the default of `b` go: it reads the latest, not the first.
    let found = may_follow(&server, "lost-default", &chain, &required("b")).await;
    assert_eq!(found, [yes, yes, no, yes, yes, yes, no]);
    // A field without a default that is new: only the old can read the new.
    let found = may_follow(&server, "required", &chain, &required("c")).await;
    assert_eq!(found, [yes, no, no, yes, yes, no, no]);
    // A field with a default that is new: both ways, always.
    let found = may_follow(&server, "optional", &chain, &optional("c")).await;
    assert_eq!(found, [yes; 7]);
    // The first wrote `b` without a default; to leave it out is fine for new readers only, and the
    // latest, which has a default, reads on.
    let chain = [required("b"), optional("b")];
    let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    let found = may_follow(&server, "left-out", &chain, &record(A)).await;
    assert_eq!(found, [yes, yes, yes, yes, no, yes, no]);
}

/// A change: what it is, the old schema, the new one, and whether the new reads the old and the old
/// the new.
type Change = (&'static str, String, String, bool, bool);

fn changes() -> Vec<Change> {
    let of = |kind: &str| record(&format!(r#"{{"name":"a","type":{kind}}}"#));
    let symbols = |list: &str, more: &str| {
        of(&format!(r#"{{"type":"enum","name":"E","symbols":[{list}]{more}}}"#))
    };
    let inner =
        |fields: &str| of(&format!(r#"{{"type":"record","name":"Inner","fields":[{fields}]}}"#));
    let fixed = |size: u32| of(&format!(r#"{{"type":"fixed","name":"F","size":{size}}}"#));
    let other_name = record(A).replace("Sold", "Bought");
    let alias = record(r#"{"name":"b","type":"int","aliases":["a"]}"#);
    vec![
        ("int to long", of(r#""int""#), of(r#""long""#), true, false),
        ("int to float", of(r#""int""#), of(r#""float""#), true, false),
        ("long to double", of(r#""long""#), of(r#""double""#), true, false),
        ("string and bytes", of(r#""string""#), of(r#""bytes""#), true, true),
        ("int and string", of(r#""int""#), of(r#""string""#), false, false),
        ("int to a union", of(r#""int""#), of(r#"["null","int"]"#), true, false),
        ("a union grows", of(r#"["null","int"]"#), of(r#"["null","int","string"]"#), true, false),
        ("a union turns round", of(r#"["null","int"]"#), of(r#"["int","null"]"#), true, true),
        (
            "items",
            of(r#"{"type":"array","items":"int"}"#),
            of(r#"{"type":"array","items":"long"}"#),
            true,
            false,
        ),
        (
            "values",
            of(r#"{"type":"map","values":"string"}"#),
            of(r#"{"type":"map","values":"int"}"#),
            false,
            false,
        ),
        (
            "array and map",
            of(r#"{"type":"array","items":"int"}"#),
            of(r#"{"type":"map","values":"int"}"#),
            false,
            false,
        ),
        ("a symbol more", symbols(r#""X""#, ""), symbols(r#""X","Y""#, ""), true, false),
        (
            "a nested field with default",
            inner(A),
            inner(&format!(r#"{A},{{"name":"b","type":"int","default":0}}"#)),
            true,
            true,
        ),
        (
            "a nested field without",
            inner(A),
            inner(&format!(r#"{A},{{"name":"b","type":"int"}}"#)),
            false,
            true,
        ),
        ("the size of a fixed", fixed(4), fixed(8), false, false),
        ("a field renamed by alias", record(A), alias, true, false),
        ("another record", record(A), other_name, false, false),
        (
            "documentation",
            record(A),
            record(A).replace(r#""name":"Sold""#, r#""name":"Sold","doc":"x""#),
            true,
            true,
        ),
    ]
}

#[tokio::test]
async fn changes_are_judged_as_avro_resolves_them() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let table = changes();
    for (n, (what, old, new, backward, forward)) in table.iter().enumerate() {
        for (level, expected) in
            [("BACKWARD", *backward), ("FORWARD", *forward), ("FULL", *backward && *forward)]
        {
            let subject = format!("change-{n}-{level}");
            server.set_level(&subject, level).await;
            server.register(&subject, old).await;
            let path = format!("/compatibility/subjects/{subject}/versions/latest");
            let asked = server.post_schema(&path, new).await;
            assert_eq!(asked, ok(json!({ "is_compatible": expected })), "{what}, {level}");
        }
    }
}

#[tokio::test]
async fn deleted_versions_are_not_compared_with_and_numbers_go_on() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    server.set_level("sold", "NONE").await;
    server.register("sold", &record(A)).await;
    server.register("sold", r#""string""#).await;
    server.set_level("sold", "BACKWARD_TRANSITIVE").await;
    let more = record(&format!(r#"{A},{{"name":"b","type":"int","default":0}}"#));
    let refused = server.post_schema("/subjects/sold/versions", &more).await;
    assert_eq!(code(&refused), (409, 409));
    assert_eq!(server.delete("/subjects/sold/versions/2").await, ok(json!(2)));
    server.register("sold", &more).await;
    assert_eq!(server.get("/subjects/sold/versions").await, ok(json!([1, 3])));
    // All of it, softly: it is gone for readers, and numbers go on when it comes back.
    assert_eq!(server.delete("/subjects/sold").await, ok(json!([1, 3])));
    assert_eq!(code(&server.get("/subjects/sold/versions").await), (404, 40401));
    assert_eq!(server.get("/subjects/sold/versions?deleted=true").await, ok(json!([1, 2, 3])));
    assert_eq!(code(&server.get("/subjects/sold/versions/latest").await), (404, 40401));
    let found = server.get("/subjects/sold/versions/3?deleted=true").await;
    assert_eq!(found.1["deleted"], json!(true));
    server.register("sold", &record(A)).await;
    assert_eq!(server.get("/subjects/sold/versions").await, ok(json!([4])));
    // Not softly: it begins anew, and the ids that records carry still stand for their schemas.
    assert_eq!(server.delete("/subjects/sold").await, ok(json!([4])));
    let all = server.delete("/subjects/sold?permanent=true").await;
    assert_eq!(all, ok(json!([1, 2, 3, 4])));
    assert_eq!(server.get("/schemas/ids/2").await, ok(json!({ "schema": r#""string""# })));
    assert_eq!(server.get("/schemas/ids/2/versions?deleted=true").await, ok(json!([])));
    assert_eq!(server.register("sold", r#""string""#).await, 2, "the same schema, the same id");
    assert_eq!(server.get("/subjects/sold/versions").await, ok(json!([1])));
}

#[tokio::test]
async fn a_mode_stops_changes_and_nothing_else() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let put = async |path: &str, mode: &str| {
        server.send(Method::PUT, path, Some(json!({ "mode": mode }))).await
    };
    let is = |mode: &str| ok(json!({ "mode": mode }));
    server.register("sold", &record(A)).await;
    assert_eq!(server.get("/mode").await, is("READWRITE"));
    assert_eq!(code(&server.get("/mode/sold").await), (404, 40409));
    assert_eq!(server.get("/mode/sold?defaultToGlobal=true").await, is("READWRITE"));
    assert_eq!(put("/mode/sold?force=False", "readonly").await, is("READONLY"));
    assert_eq!(server.get("/mode/sold").await, is("READONLY"));

    let other = server.post_schema("/subjects/sold/versions", r#""int""#).await;
    assert_eq!(code(&other), (422, 42205));
    assert_eq!(code(&server.delete("/subjects/sold").await), (422, 42205));
    assert_eq!(code(&server.delete("/subjects/sold/versions/1").await), (422, 42205));
    let level = Some(json!({ "compatibility": "NONE" }));
    assert_eq!(code(&server.send(Method::PUT, "/config/sold", level).await), (422, 42205));
    // What is there already is found, registered again, and other subjects go on.
    assert_eq!(server.register("sold", &record(A)).await, 1);
    assert_eq!(server.get("/subjects/sold/versions/latest").await.0, StatusCode::OK);
    server.register("other", r#""int""#).await;

    // The global mode holds for those without one of their own; override for all.
    assert_eq!(put("/mode", "READONLY").await, is("READONLY"));
    assert_eq!(put("/mode/sold", "READWRITE").await, is("READWRITE"));
    server.set_level("sold", "NONE").await;
    server.register("sold", r#""int""#).await;
    let refused = server.post_schema("/subjects/other/versions", r#""long""#).await;
    assert_eq!(code(&refused), (422, 42205));
    assert_eq!(put("/mode", "READONLY_OVERRIDE").await, is("READONLY_OVERRIDE"));
    let refused = server.post_schema("/subjects/sold/versions", r#""long""#).await;
    assert_eq!(code(&refused), (422, 42205));
    assert_eq!(server.delete("/mode/sold").await, is("READWRITE"));
    assert_eq!(code(&server.delete("/mode/sold").await), (404, 40401));
    assert_eq!(server.delete("/mode").await, is("READONLY_OVERRIDE"));
    assert_eq!(server.get("/mode").await, is("READWRITE"));
    server.register("sold", r#""long""#).await;

    assert_eq!(code(&put("/mode", "QUIET").await), (422, 42204));
    assert_eq!(code(&server.send(Method::PUT, "/mode", Some(json!({}))).await), (422, 42204));
    // Ids are this registry's to give.
    assert_eq!(code(&put("/mode", "IMPORT").await), (422, 42205));
}

fn version(subject: &str, version: i32, id: i32, text: &str) -> Value {
    json!({ "subject": subject, "version": version, "id": id, "schema": text })
}

#[tokio::test]
async fn lists_have_parts_and_name_everything() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    server.set_level("b", "NONE").await;
    for (subject, schema) in [("a", r#""int""#), ("b", r#""int""#), ("b", r#""long""#)] {
        server.register(subject, schema).await;
    }
    let (a1, b1) = (version("a", 1, 1, r#""int""#), version("b", 1, 1, r#""int""#));
    let b2 = version("b", 2, 2, r#""long""#);
    for (path, expected) in [
        ("/schemas", json!([a1, b1, b2])),
        ("/schemas?latestOnly=true", json!([a1, b2])),
        ("/schemas?subjectPrefix=b&offset=1", json!([b2])),
        ("/schemas?limit=1", json!([a1])),
        ("/schemas?limit=-1&offset=-4", json!([a1, b1, b2])),
        ("/subjects?offset=1&limit=5", json!(["b"])),
        ("/subjects?limit=0", json!([])),
        ("/subjects/b/versions?offset=0&limit=1", json!([1])),
        ("/schemas/ids/1/subjects?offset=1", json!(["b"])),
        ("/schemas/ids/1/versions?limit=1", json!([{ "subject": "a", "version": 1 }])),
        ("/schemas/ids/1?fetchMaxId=true", json!({ "schema": r#""int""#, "maxId": 2 })),
        ("/subjects/b/versions/latest/referencedby", json!([])),
        ("/contexts?offset=0&limit=-1", json!(["."])),
    ] {
        assert_eq!(server.get(path).await, ok(expected), "{path}");
    }
    assert_eq!(code(&server.get("/subjects/b/versions/9/referencedby").await), (404, 40402));
    assert_eq!(server.delete("/subjects/b/versions/2").await, ok(json!(2)));
    assert_eq!(server.get("/schemas?latestOnly=true").await, ok(json!([a1, b1])));
    let all = server.get("/schemas?deleted=true").await;
    assert_eq!(all.1.as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_text_that_the_avro_library_panics_at_is_refused_like_any_other() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let found = std::fs::read("../../fuzz/corpus/decode/library-panics-at-schema").unwrap();
    let text = &found[1..=found.iter().rposition(|byte| *byte == b'}').unwrap()];
    let text = std::str::from_utf8(text).unwrap();
    let (status, problem) = server.post_schema("/subjects/a/versions", text).await;
    assert_eq!((status.as_u16(), &problem["error_code"]), (422, &json!(42201)), "{problem}");
    server.register("a", r#""int""#).await;
}
