//! More queries than the connections to the database can serve.

use crate::harness::{Api, serve, thing};
use foldstream_service::health::{Health, admin_router};
use foldstream_service::metrics::HttpMetrics;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// For two seconds, five hundred in a second.
const QUERIES: u32 = 1_000;
const EVERY: Duration = Duration::from_millis(2);

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_says_503_at_once_and_liveness_goes_on() {
    let api = Api::start_with("exhaustion", |options| {
        options.connections = 2;
        options.pool_wait = Duration::from_millis(300);
    })
    .await;
    api.write(&[thing("a", 1)]).await;
    let registry = prometheus::Registry::new();
    let http = HttpMetrics::new(&registry).expect("a fresh registry");
    let health = Health::new();
    health.set_started();
    let (admin, _end) = serve(admin_router(health, registry), http).await;
    assert_eq!(api.get("/v1/things").await.status, 200);

    // Whoever reads the table waits, until the statement's own deadline.
    let mut holding = api.pool.acquire().await.expect("a connection");
    sqlx::raw_sql("begin; lock table rm_things_b1.things in access exclusive mode")
        .execute(&mut *holding)
        .await
        .expect("nobody reads it now");
    let api = std::sync::Arc::new(api);
    let (mut queries, mut alive) = (JoinSet::new(), JoinSet::new());
    let mut ticks = tokio::time::interval(EVERY);
    for n in 0..QUERIES {
        ticks.tick().await;
        let api = std::sync::Arc::clone(&api);
        queries.spawn(async move {
            let began = Instant::now();
            (api.get("/v1/things").await, began.elapsed())
        });
        if n % 50 == 0 {
            let url = format!("{admin}/livez");
            alive.spawn(async move {
                let began = Instant::now();
                let answer = reqwest::get(url).await.expect("an answer");
                (answer.status().as_u16(), began.elapsed())
            });
        }
    }
    let (mut counts, mut took) = (BTreeMap::<u16, u32>::new(), Vec::new());
    for (answer, elapsed) in queries.join_all().await {
        *counts.entry(answer.status).or_default() += 1;
        let (status, code) = answer.problem();
        assert_eq!(status, 503, "{answer:?}");
        assert!(["overloaded", "unavailable"].contains(&code.as_str()), "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
        took.push(elapsed);
    }
    took.sort_unstable();
    let live = alive.join_all().await;
    let slowest = live.iter().map(|(_, elapsed)| *elapsed).max().expect("it was asked");
    let (p50, p90) = (took[took.len() / 2], took[took.len() * 9 / 10]);
    println!("{counts:?}: p50 {p50:?}, p90 {p90:?}; liveness within {slowest:?}");
    // All but the two that hold the connections are told within the wait for one, not a statement's
    // deadline; the machine is shared, so with room.
    assert!(p90 < Duration::from_millis(1_500), "{p90:?}");
    assert!(live.iter().all(|(status, _)| *status == 200));
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");

    sqlx::raw_sql("rollback").execute(&mut *holding).await.expect("it holds the lock");
    foldstream_testkit::eventually(Duration::from_secs(10), "answers again", async || {
        api.get("/v1/things").await.status == 200
    })
    .await;
}
