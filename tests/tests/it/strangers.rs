//! Clients that are not ours use the registry and read the topics of a running shop.

use std::time::Duration;

use foldstream_testkit::eventually;
use serde_json::{Value, json};
use system_tests::documents::{credit_note, invoice, new_id};
use system_tests::{python, shop};

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_uses_the_registry_and_writes_and_reads_avro() {
    let shop = shop::shared().await;
    let ready = shop.ready().clone();
    let topic = new_id();
    let done = tokio::task::spawn_blocking(move || {
        python::use_registry(&ready.kafka, &ready.registry, &topic)
    });
    assert_eq!(done.await.expect("the script ends well"), json!({ "records": 101 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_consumer_reads_the_shops_own_topics() {
    let shop = shop::shared().await;
    let api = shop.api();
    let (mut invoices, mut credits) = (0, 0);
    for _ in 0..5 {
        api.post("/v1/invoices", &invoice(&new_id())).await.expect(201);
        let credit = credit_note(&format!("C{}", new_id()));
        api.post("/v1/credit-notes", &credit).await.expect(201);
        (invoices, credits) = (invoices + 1, credits + 1);
    }
    let ready = shop.ready().clone();
    eventually(Duration::from_secs(60), "the relay has sent them all", async || {
        let ready = ready.clone();
        let topics = ["shop.invoices", "shop.credit-notes"];
        let read = move || python::read_topics(&ready.kafka, &ready.registry, &topics);
        let found = tokio::task::spawn_blocking(read).await.expect("every record is as published");
        // Other tests of this process post to the same shop.
        let records = |topic: &str| found[topic]["records"].as_i64().unwrap_or(0);
        let all = records("shop.invoices") >= invoices && records("shop.credit-notes") >= credits;
        if all { Ok::<Value, String>(found) } else { Err(found.to_string()) }
    })
    .await;
}
