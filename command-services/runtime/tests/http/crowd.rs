//! Ten thousand commands on one stream at once, through two processes.

use crate::server::{App, Setup, tab};
use foldstream_commands::Options;
use foldstream_service::server::Limits;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const COMMANDS: usize = 10_000;
/// At once; each sends the next when it has its answer. More than both processes take in.
const CLIENTS: usize = 2_000;
/// No test machine is so slow; a livelock is.
const BOUND: Duration = Duration::from_secs(90);

/// How many batches went to the database.
fn batches(app: &App) -> u64 {
    let metrics = app.metrics();
    let counts = metrics.lines().filter(|line| line.starts_with("append_batch_size_count"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_at_once_make_progress_and_hear_a_clear_answer() {
    // So many clients in one process, beside other tests on two cores: no deadline is to tell how
    // slow they are, only whether there is progress.
    let setup = || Setup {
        limits: Limits {
            max_connections: CLIENTS,
            header_deadline_ms: 60_000,
            body_deadline_ms: 60_000,
            ..Limits::default()
        },
        options: Options { deadline: BOUND, ..Options::default() },
        store: |options| options.timings.call = Duration::from_secs(30),
        ..Setup::default()
    };
    let one = Arc::new(App::start_as(setup()).await);
    let two = Arc::new(one.another(setup()).await);
    // Both are connected from here on.
    assert_eq!(one.post("/v1/guest-tabs", &tab("1")).await.status, 201);
    assert_eq!(two.post("/v1/guest-tabs", &tab("1")).await.status, 200);
    let (client, began) = (one.keeping_connections(), Instant::now());
    let mut all = JoinSet::new();
    for n in 0..CLIENTS {
        let app = Arc::clone(if n % 2 == 0 { &one } else { &two });
        let client = client.clone();
        all.spawn(async move {
            let round = "/v1/guest-tabs/1/commands/order-round";
            let body = json!({"items": [format!("{n}")]});
            // Every other one builds on a version that only one of them can meet.
            let headers: &[(&str, &str)] = if n % 4 < 2 { &[] } else { &[("if-match", "\"1\"")] };
            let mut answers = Vec::with_capacity(COMMANDS / CLIENTS);
            for _ in 0..COMMANDS / CLIENTS {
                answers.push(app.post_by(&client, round, &body, headers).await);
            }
            answers
        });
    }
    let mut answers = BTreeMap::<(u16, String), u64>::new();
    while let Some(of_client) = all.join_next().await {
        for answer in of_client.expect("every command is answered") {
            let code = answer.json["code"].as_str().unwrap_or_default().to_owned();
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
            }
            *answers.entry((answer.status, code)).or_default() += 1;
        }
    }
    let took = began.elapsed();
    let (batches, done) = (batches(&one) + batches(&two), answers[&(200, String::new())]);
    println!("{COMMANDS} commands on one stream in {took:?}: {batches} batches, {answers:?}");
    assert!(took < BOUND, "{took:?}");
    let clear = [(200, ""), (409, "contended"), (412, "version-mismatch"), (503, "overloaded")];
    for (status, code) in answers.keys() {
        assert!(clear.contains(&(*status, code.as_str())), "{status} {code}");
    }
    // At least one succeeds in each round trip, on average and with what two processes lose to one
    // another: a batch that meets a version of the other process is decided again.
    assert!(done * 2 >= batches, "{done} commands in {batches} batches");
    let latest = one.get("/v1/guest-tabs/1/state").await;
    assert_eq!(latest.json["version"], done + 1, "each success is one event, no other is");
    assert_eq!(latest.json["state"]["items"], done);
}
