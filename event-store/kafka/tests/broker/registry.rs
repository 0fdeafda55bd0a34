//! The registry client against Foldstream's own registry.

use foldstream_kafka::{SchemaError, SchemaRegistry};
use foldstream_registry::Registry;
use foldstream_testkit::database;
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
    assert!(registry.compatible(SUBJECT, ONE).await.unwrap());
    let one = registry.register(SUBJECT, ONE).await.unwrap();
    assert_eq!(registry.register(SUBJECT, ONE).await.unwrap(), one);
    let two = registry.register(SUBJECT, TWO).await.unwrap();
    assert_ne!(one, two);
    assert!(!registry.compatible(SUBJECT, BAD).await.unwrap());
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
    let id = registry.register(SUBJECT, ONE).await.unwrap();
    assert_eq!(registry.schema(id).await.unwrap().id(), id);
}
