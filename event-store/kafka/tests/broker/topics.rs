//! Topics in a real Kafka.

use foldstream_kafka::{Cluster, KafkaError, TopicSpec};
use foldstream_testkit::{free_port, infra, unique};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_with_the_settings_that_count() {
    let cluster = Cluster::new(&infra().kafka).unwrap();
    let name = unique("topics");
    let specs = [TopicSpec::new(&name, 3)];
    let racing = (0..4).map(|_| {
        let specs = specs.clone();
        tokio::spawn(async move { Cluster::new(&infra().kafka)?.ensure(&specs).await })
    });
    let mut created = 0;
    for task in racing.collect::<Vec<_>>() {
        let ensured = task.await.unwrap().unwrap();
        created += ensured.created.len();
        assert_eq!(ensured.warnings, Vec::<String>::new());
    }
    assert_eq!(created, 1);
    let described = cluster.describe(&[&name]).await.unwrap().remove(0);
    let marks: Vec<_> = described.partitions.iter().map(|p| (p.partition, p.low, p.high)).collect();
    assert_eq!(marks, [(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
    assert_eq!(described.settings["retention.ms"], "-1");
    assert_eq!(described.settings["cleanup.policy"], "delete");
    assert_eq!(described.settings["message.timestamp.after.max.ms"], i64::MAX.to_string());
    let other = cluster.ensure(&[TopicSpec::new(&name, 4)]).await.unwrap_err();
    assert!(matches!(other, KafkaError::Mismatch { .. }), "{other:?}");
    assert!(cluster.names().await.unwrap().contains(&name));
    cluster.delete(&[&name, "there-is-none"]).await.unwrap();
    assert_eq!(cluster.describe(&[&name]).await.unwrap_err(), KafkaError::NoTopic(name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_topics_settings_are_warned_of() {
    let name = unique("foreign");
    let admin: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &infra().kafka).create().unwrap();
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    admin.create_topics(&[new], &AdminOptions::new()).await.unwrap();
    let cluster = Cluster::new(&infra().kafka).unwrap();
    let ensured = cluster.ensure(&[TopicSpec::new(&name, 1)]).await.unwrap();
    assert!(ensured.created.is_empty());
    for setting in ["cleanup.policy=compact", "message.timestamp.after.max.ms="] {
        assert!(ensured.warnings.iter().any(|w| w.contains(setting)), "{ensured:?}");
    }
    cluster.delete(&[&name]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_is_said_in_time() {
    let port = free_port();
    let cluster = Cluster::new(&format!("127.0.0.1:{port}")).unwrap();
    let asked = Instant::now();
    let error = cluster.check(Duration::from_millis(500)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(asked.elapsed() < Duration::from_secs(2));
    let brokers = Cluster::new(&infra().kafka).unwrap().brokers(Duration::from_secs(5)).await;
    assert_eq!(brokers.unwrap().len(), 1);
}
