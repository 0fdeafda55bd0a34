//! The registry client against Foldstream's own registry.

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::IntoResponse;
use foldstream_kafka::{Registered, SchemaError, SchemaRegistry};
use foldstream_registry::Registry;
use foldstream_testkit::database;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ONE: &str = r#"{"type":"record","name":"Issued","namespace":"shop.invoices",
    "fields":[{"name":"id","type":"string"}]}"#;
const TWO: &str = r#"{"type":"record","name":"Issued","namespace":"shop.invoices",
    "fields":[{"name":"id","type":"string"},{"name":"note","type":"string","default":""}]}"#;
const BAD: &str = r#"{"type":"record","name":"Issued","namespace":"shop.invoices",
    "fields":[{"name":"id","type":"long"}]}"#;
const SUBJECT: &str = "shop.invoices-shop.invoices.Issued";

async fn serve(database: &str) -> (String, JoinHandle<()>) {
    let router = Registry::open(database).await.unwrap().router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_registered_found_and_refused() {
    let database = database("registry-client").await;
    let (url, server) = serve(&database.url).await;
    let registry = SchemaRegistry::new(&url).unwrap();
    registry.check().await.unwrap();
    assert_eq!(registry.objections(SUBJECT, ONE).await, Ok(Vec::new()));
    assert_eq!(registry.find(SUBJECT, ONE).await, Ok(None));
    assert_eq!(registry.compatibility(SUBJECT).await, Ok(None));
    let one = registry.register(SUBJECT, ONE).await.unwrap();
    assert_eq!(registry.register(SUBJECT, ONE).await.unwrap(), one);
    let two = registry.register(SUBJECT, TWO).await.unwrap();
    assert_ne!(one, two);
    let objections = registry.objections(SUBJECT, BAD).await.unwrap();
    assert!(objections.iter().any(|said| said.contains("'id'")), "{objections:?}");
    let found = registry.find(SUBJECT, TWO).await.unwrap();
    assert_eq!(found, Some(Registered { id: two, version: 2 }));
    assert_eq!(registry.find(SUBJECT, BAD).await, Ok(None));
    registry.set_compatibility(SUBJECT, "FULL_TRANSITIVE").await.unwrap();
    assert_eq!(registry.compatibility(SUBJECT).await, Ok(Some("FULL_TRANSITIVE".into())));
    let no_level = registry.set_compatibility(SUBJECT, "LOUD").await.unwrap_err();
    assert!(matches!(no_level, SchemaError::Invalid(_)), "{no_level:?}");
    let refused = registry.register(SUBJECT, BAD).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Incompatible { .. }), "{refused:?}");
    let nonsense = registry.register(SUBJECT, "{}").await.unwrap_err();
    assert!(matches!(nonsense, SchemaError::Invalid(_)), "{nonsense:?}");

    let found = registry.schema(two).await.unwrap();
    assert_eq!((found.id(), found.full_name()), (two, "shop.invoices.Issued"));
    assert_eq!(registry.schema(999_999).await.unwrap_err(), SchemaError::Unknown(999_999));

    // What is known stays known, what is not is waited for.
    server.abort();
    let _ = server.await;
    assert!(registry.schema(two).await.is_ok());
    let away = registry.schema(one).await.unwrap_err();
    assert!(away.is_transient(), "{away:?}");
    assert!(registry.check().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_comes_late_is_found() {
    let database = database("registry-late").await;
    let (url, _server) = serve(&database.url).await;
    let registry = SchemaRegistry::new(&url).unwrap();
    assert_eq!(registry.schema(1).await.unwrap_err(), SchemaError::Unknown(1));
    let waits = registry.trouble().unwrap();
    assert!(
        waits.contains("waiting for schema 1 since 0 s: the schema registry knows no"),
        "{waits}"
    );
    let id = registry.register(SUBJECT, ONE).await.unwrap();
    assert_eq!(registry.schema(id).await.unwrap().id(), id);
    assert_eq!(registry.trouble(), None);
}

/// What a broken registry answers before it is well again.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Error,
    NotFound,
    NoPage,
    Empty,
    NotJson,
    OtherJson,
    Silent,
    Cut,
}

/// The real registry behind a door that answers in its place for a while.
async fn serve_broken(database: &str, ways: Vec<Broken>) -> (String, Arc<Mutex<Vec<Broken>>>) {
    let left = Arc::new(Mutex::new(ways));
    let inner = left.clone();
    let door = axum::middleware::from_fn(move |request: Request, next: Next| {
        let way = inner.lock().unwrap().pop();
        async move {
            let plain = |status: u16, text: &'static str| {
                (StatusCode::from_u16(status).unwrap(), text).into_response()
            };
            match way {
                None => next.run(request).await,
                Some(Broken::Error) => {
                    plain(500, r#"{"error_code":50001,"message":"Error in the backend"}"#)
                }
                Some(Broken::NotFound) => {
                    plain(404, r#"{"error_code":40403,"message":"Schema not found"}"#)
                }
                Some(Broken::NoPage) => plain(404, "<html>no such page</html>"),
                Some(Broken::Empty) => plain(200, ""),
                Some(Broken::NotJson) => plain(200, "<html>welcome</html>"),
                Some(Broken::OtherJson) => plain(200, r#"{"schema":null,"id":"seven"}"#),
                Some(Broken::Silent) => {
                    tokio::time::sleep(Duration::from_secs(40)).await;
                    next.run(request).await
                }
                Some(Broken::Cut) => {
                    let body = futures_util::stream::iter([
                        Ok("{\"schema\":".to_owned()),
                        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                    ]);
                    Body::from_stream(body).into_response()
                }
            }
        }
    });
    let router = Registry::open(database).await.unwrap().router().layer(door);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_answer_is_worth_another_try_and_none_takes_long() {
    let database = database("registry-broken").await;
    let (url, ways) = serve_broken(&database.url, Vec::new()).await;
    let id = SchemaRegistry::new(&url).unwrap().register(SUBJECT, ONE).await.unwrap();
    let all = [
        Broken::Error,
        Broken::NotFound,
        Broken::NoPage,
        Broken::Empty,
        Broken::NotJson,
        Broken::OtherJson,
        Broken::Cut,
        Broken::Silent,
    ];
    for way in all {
        // Enough for a call that tries again by itself.
        let registry = SchemaRegistry::new(&url).unwrap();
        let broken = || *ways.lock().unwrap() = vec![way; 8];
        let began = Instant::now();
        broken();
        let failed = registry.schema(id).await.unwrap_err();
        assert!(failed.is_transient(), "{way:?}: {failed:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "{way:?}: {:?}", began.elapsed());
        assert!(registry.trouble().is_some(), "{way:?}");
        if !matches!(way, Broken::Silent) {
            broken();
            let failed = registry.register(SUBJECT, ONE).await.unwrap_err();
            assert!(failed.is_transient(), "{way:?}: {failed:?}");
        }
        if !matches!(way, Broken::Silent | Broken::NotFound) {
            broken();
            let failed = registry.objections(SUBJECT, ONE).await.unwrap_err();
            assert!(failed.is_transient(), "{way:?}: {failed:?}");
        }
        // Well again: the same client goes on.
        ways.lock().unwrap().clear();
        assert_eq!(registry.schema(id).await.unwrap().id(), id, "{way:?}");
        assert_eq!(registry.trouble(), None, "{way:?}");
    }
}
