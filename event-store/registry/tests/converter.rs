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

#[tokio::test]
async fn schema_registry_converter_reads_old_and_new_versions_side_by_side() {
    let database = database("registry").await;
    let server = Server::start(&database.url).await;
    let settings = SrSettings::new(server.url.clone());
    let subject = "shop.sold-shop.Sold";
    let (first, second) = (
        record(r#"{"name":"a","type":"int"}"#),
        record(r#"{"name":"a","type":"long"},{"name":"b","type":"string","default":"none"}"#),
    );
    let broken = record(r#"{"name":"a","type":"int"},{"name":"c","type":"string"}"#);
    let post = async |text: &str| {
        let name = Some("shop.Sold".to_owned());
        let supplied = SuppliedSchema::new(name, SchemaType::Avro, text.to_owned());
        post_schema(&settings, subject.to_owned(), supplied).await
    };
    assert_eq!(post(&first).await.expect("the first").id, 1);
    let refused = post(&broken).await.expect_err("what was written has no `c`");
    assert!(!refused.retriable, "a refusal is final: {refused}");
    assert!(refused.cause.is_some_and(|cause| cause.contains("409")));
    assert_eq!(post(&second).await.expect("the second").id, 2);
    // The same text again, laid out otherwise, is the same version.
    assert_eq!(post(&second.replace(':', " : ")).await.expect("as before").id, 2);

    // Writers by the latest schema of a subject, and by the first one, which still stands.
    let latest = SubjectNameStrategy::RecordNameStrategy(subject.to_owned());
    let encoder = AvroEncoder::new(settings.clone());
    let fields = vec![("a", Value::Long(7)), ("b", Value::String("x".to_owned()))];
    let new = encoder.encode(fields, latest).await.expect("encoded");
    assert_eq!(new[..5], [0, 0, 0, 0, 2]);
    let old = [0, 0, 0, 0, 1, 14];
    let decoder = AvroDecoder::new(settings.clone());
    for (bytes, expected) in [
        (&old[..], vec![("a", Value::Int(7))]),
        (&new[..], vec![("a", Value::Long(7)), ("b", Value::String("x".to_owned()))]),
    ] {
        let decoded = decoder.decode(Some(bytes)).await.expect("decoded");
        let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value));
        assert_eq!(decoded.value, Value::Record(expected.collect()));
    }
    // Deleted for good, and still there for the records that name it.
    for path in ["", "?permanent=true"] {
        let deleted = server.delete(&format!("/subjects/{subject}{path}")).await;
        assert_eq!(deleted.0, reqwest::StatusCode::OK, "{deleted:?}");
    }
    let decoder = AvroDecoder::new(settings.clone());
    decoder.decode(Some(&old)).await.expect("its id still stands for its schema");
    let gone = get_schema_by_subject_and_version(&settings, subject, None).await;
    let gone = gone.expect_err("the subject is gone");
    assert!(gone.cause.is_some_and(|cause| cause.contains("40401")));
}
