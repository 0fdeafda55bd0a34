//! The registry as a Rust client that is not ours uses it.

mod support;

use apache_avro::types::Value;
use foldstream_testkit::database;
use schema_registry_converter::async_impl::avro::{AvroDecoder, AvroEncoder};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, get_schema_by_subject_and_version, post_schema,
};
use schema_registry_converter::schema_registry_common::{
    SchemaType, SubjectNameStrategy, SuppliedSchema,
};
use support::{Server, record};

#[tokio::test]
async fn schema_registry_converter_registers_encodes_and_decodes() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let settings = SrSettings::new(server.url.clone());
    let text = record(r#"{"name":"a","type":"int"}"#);
    let supplied =
        SuppliedSchema::new(Some("shop.Sold".to_owned()), SchemaType::Avro, text.clone());
    let posted = post_schema(&settings, "shop.sold-shop.Sold".to_owned(), supplied.clone())
        .await
        .expect("registered");
    assert_eq!(posted.id, 1);
    let by_id = get_schema_by_id(1, &settings).await.expect("found by id");
    assert_eq!(by_id.schema, text);
    let latest = get_schema_by_subject_and_version(&settings, "shop.sold-shop.Sold", None)
        .await
        .expect("found by subject");
    assert_eq!((latest.id, latest.version), (1, Some(1)));

    let strategy =
        SubjectNameStrategy::TopicRecordNameStrategyWithSchema("shop.sold".to_owned(), supplied);
    let bytes = AvroEncoder::new(settings.clone())
        .encode(vec![("a", Value::Int(7))], strategy)
        .await
        .expect("encoded");
    assert_eq!(bytes, [0, 0, 0, 0, 1, 14]);
    let decoded = AvroDecoder::new(settings).decode(Some(&bytes)).await.expect("decoded");
    assert_eq!(decoded.value, Value::Record(vec![("a".to_owned(), Value::Int(7))]));
}

#[tokio::test]
async fn schema_registry_converter_is_told_what_is_wrong() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let settings = SrSettings::new(server.url.clone());
    let error = get_schema_by_id(9, &settings).await.expect_err("there is none");
    assert!(!error.retriable, "a missing id is final: {error}");
    assert!(error.cause.is_some_and(|cause| cause.contains("40403")));
}
