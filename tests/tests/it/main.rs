//! The whole flow, as users and operators meet it: real processes, real Kafka, real Postgres.

mod bad_commands;
mod bad_headers;
mod bad_queries;
mod commands;
mod contracts;
mod disk_full;
mod documents;
mod faults;
mod importer;
mod kill;
mod month;
mod relays;
mod roles;
mod slow_clients;
mod strangers;
mod streams;

use std::time::Duration;

use foldstream_testkit::eventually;
use serde_json::Value;
use system_tests::api::{Answer, Api};
use system_tests::models::{MODELS, equal};
use system_tests::oracle::Oracle;
use system_tests::shop::Shop;

/// Reads by key with a token until the read model has come there; a single try waits for seconds.
async fn seen(api: &Api, path: &str, token: &str, within: Duration) -> Answer {
    let headers = [("consistency-token", token), ("prefer", "wait=5")];
    eventually(within, path, async || {
        let answer = api.send("GET", path, &headers, None).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.shown()) }
    })
    .await
}

/// The checks of `/readyz` that fail, by name.
async fn failing(admin: &Api) -> Result<Vec<String>, String> {
    let answer = admin.send("GET", "/readyz", &[], None).await.map_err(|e| e.to_string())?;
    let report = answer.json();
    let checks = report["checks"].as_object().ok_or_else(|| answer.shown())?;
    let fails = |(_, check): &(&String, &Value)| check["status"] != "ok";
    Ok(checks.iter().filter(fails).map(|(name, _)| name.clone()).collect())
}

/// Waits until the analysts' views equal the oracle, then compares what HTTP answers.
async fn equals_oracle(shop: &Shop, oracle: &Oracle, within: Duration) {
    for model in &MODELS {
        let expected = oracle.rows(model.name);
        eventually(within, model.name, async || {
            let found = model.by_sql(&shop.ready().analyst).await?;
            equal(model.name, &expected, &found)
        })
        .await;
    }
    let api = shop.api();
    for model in &MODELS {
        let found = model.over_http(&api).await;
        equal(model.name, &oracle.rows(model.name), &found).unwrap_or_else(|why| panic!("{why}"));
    }
}
