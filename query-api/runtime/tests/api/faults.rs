//! A database that is away, slow or busy.

use crate::harness::{Api, serve, thing, token};
use crate::sample::ThingRow;
use axum::Router;
use axum::routing::{get, post};
use foldstream_queries::{OpenError, Options, Queries, QueryMetrics};
use foldstream_service::metrics::HttpMetrics;
use foldstream_testkit::eventually;
use foldstream_testkit::proxy::Proxy;
use sqlx::Executor;
use std::time::{Duration, Instant};

async fn answers_again(api: &Api) {
    eventually(Duration::from_secs(5), "an answer again", async || {
        api.get("/v1/things/a/1").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn while_postgres_is_away_the_answer_is_503_and_then_it_recovers() {
    let infra = &foldstream_testkit::infra().postgres_admin_url;
    let proxy = Proxy::before(infra).await;
    let api = Api::start_with("away", |options| {
        options.read_database_url = proxy.instead_of(&options.read_database_url);
    })
    .await;
    api.write(&[thing("a", 1)]).await;
    assert_eq!(api.get("/v1/things/a/1").await.status, 200);
    proxy.down();
    for path in ["/v1/things", "/v1/things/a/1"] {
        let started = Instant::now();
        let answer = api.get(path).await;
        assert_eq!(answer.problem(), (503, "unavailable".to_owned()));
        assert!(answer.header("retry-after").parse::<u64>().is_ok());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    let waiting = [("consistency-token", token(0, 1)), ("prefer", "wait=1".to_owned())];
    let waiting: Vec<_> = waiting.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(api.get_with("/v1/things", &waiting).await.problem().0, 503);
    proxy.heal();
    answers_again(&api).await;
}

#[tokio::test]
async fn connections_that_died_in_the_pool_are_not_noticed_outside() {
    let api = Api::start("dead").await;
    api.write(&[thing("a", 1)]).await;
    let get = || api.get("/v1/things/a/1");
    let together = tokio::join!(get(), get(), get(), get(), get(), get());
    assert_eq!(together.0.status, 200);
    api.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'foldstream queries'",
    )
    .await;
    for _ in 0..8 {
        assert_eq!(get().await.status, 200);
    }
}

#[tokio::test]
async fn a_slow_statement_ends_and_a_full_pool_is_refused_at_once() {
    let api = Api::start_with("slow", |options| {
        options.statement_timeout = Duration::from_secs(2);
        options.pool_wait = Duration::from_millis(500);
        options.connections = 1;
    })
    .await;
    api.write(&[thing("a", 1)]).await;
    answers_again(&api).await;
    let mut lock = api.pool.begin().await.expect("begins");
    let statement = "lock table rm_things_b1.things in access exclusive mode";
    lock.execute(statement).await.expect("locked");
    let slow = async {
        let answer = api.get("/v1/things").await;
        assert_eq!(answer.problem(), (503, "unavailable".to_owned()));
        assert!(answer.text.contains("longer than 2 s"), "{}", answer.text);
    };
    let busy = async {
        let blocked = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'";
        eventually(Duration::from_millis(1_500), "the first to be held up", async || {
            sqlx::query_scalar::<_, i64>(blocked).fetch_one(&api.pool).await.is_ok_and(|n| n == 1)
        })
        .await;
        let started = Instant::now();
        let answer = api.get("/v1/things/a/1").await;
        assert_eq!(answer.problem(), (503, "overloaded".to_owned()));
        assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    };
    tokio::join!(slow, busy);
    lock.rollback().await.expect("rolled back");
    answers_again(&api).await;
    let waited = api.registry.gather();
    let waited = waited.iter().find(|f| f.name() == "db_pool_wait_seconds");
    assert!(waited.is_some_and(|f| f.get_metric()[0].get_histogram().get_sample_count() >= 4));
}

#[tokio::test]
async fn more_requests_than_may_be_in_flight_are_refused() {
    let api = Api::start_with("flight", |options| {
        options.in_flight = 4;
        options.pool_wait = Duration::from_secs(2);
    })
    .await;
    api.checkpoint(0, 1).await;
    // Two may wait for a token; a third is told so, and others are still served.
    let token = token(0, 2);
    let get = |prefer| {
        let headers = [("consistency-token", token.as_str()), ("prefer", prefer)];
        let api = &api;
        async move { api.get_with("/v1/things", &headers).await.problem().1 }
    };
    let others = async {
        api.waiting(2).await;
        let third = get("wait=0").await;
        (third, api.get("/v1/things").await.status)
    };
    let (a, b, others) = tokio::join!(get("wait=5"), get("wait=5"), others);
    assert_eq!((a.as_str(), b.as_str()), ("read-model-behind", "read-model-behind"));
    assert_eq!((others.0.as_str(), others.1), ("overloaded", 200));
}

#[tokio::test]
async fn beside_the_routes_of_commands_and_with_no_database_at_the_start() {
    let registry = prometheus::Registry::new();
    let http = HttpMetrics::new(&registry).expect("a fresh registry");
    let metrics = QueryMetrics::new(&registry).expect("a fresh registry");
    let nowhere = format!("postgres://nobody@127.0.0.1:{}/x", foldstream_testkit::free_port());
    let models = vec![foldstream_core::read_model::<ThingRow>()];
    let options = Options::new(nowhere, "test", models, [1; 32]);
    let queries = Queries::open(options, metrics, http.clone()).expect("valid options");
    let commands = Router::new()
        .route("/v1/things", post(|| async { "made" }))
        .route("/v1/things/{id}/history", get(|| async { "history" }))
        .route("/v1/things/{id}/commands/{command}", post(|| async { "done" }));
    let (address, _end) = serve(queries.router().merge(commands), http).await;
    let client = reqwest::Client::new();
    let cases = [
        ("POST", "/v1/things", 200),
        ("GET", "/v1/things/a/history", 200),
        ("POST", "/v1/things/a/commands/paint", 200),
        ("GET", "/v1/things", 503),
        ("GET", "/v1/things/a/1", 503),
    ];
    for (method, path, status) in cases {
        let method = method.parse().expect("a method");
        let answer = client.request(method, format!("{address}{path}")).send().await;
        assert_eq!(answer.expect("an answer").status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn options_that_cannot_be_served_are_refused() {
    let open = |secret: &[u8], times: usize| {
        let registry = prometheus::Registry::new();
        let http = HttpMetrics::new(&registry).expect("a fresh registry");
        let metrics = QueryMetrics::new(&registry).expect("a fresh registry");
        let models = vec![foldstream_core::read_model::<ThingRow>(); times];
        Queries::open(Options::new("postgres://h/x", "test", models, secret), metrics, http).err()
    };
    assert!(open(&[1; 32], 1).is_none());
    assert!(matches!(open(&[1; 31], 1), Some(OpenError::WeakSecret(31))));
    assert!(matches!(open(&[1; 32], 2), Some(OpenError::Twice("things"))));
}
