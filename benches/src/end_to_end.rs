//! `end-to-end`: from a command to the read model that shows it.
//!
//! All roles run in this process: registry, commands, relay, projections and queries. An open loop
//! posts so many invoices a second, whether or not earlier ones are answered, and then reads each
//! from the query API with the consistency token of its answer. The time goes from the moment the
//! request was due to the answer that holds the row.

use crate::arguments::Arguments;
use crate::http_load::{Keep, NUMBER, Template};
use crate::infra::{Infra, Needs, peak_mb, reset_peak};
use crate::load::{Plan, histogram};
use crate::registry::{self, APP};
use crate::report::{Case, Report};
use crate::served::{self, PARTITIONS, Serving};
use anyhow::{Context, Result, bail, ensure};
use foldstream_commands::{CommandMetrics, Options, Service, router};
use foldstream_kafka::{Relay, RelayOptions};
use foldstream_postgres::{EventStore, StoreOptions};
use foldstream_projections::{ProjectionMetrics, Projections};
use foldstream_queries::{Queries, QueryMetrics};
use foldstream_service::metrics::HttpMetrics;
use prometheus::Registry;
use shop_invoicing::{CreditNote, Invoice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const PER_SECOND: u64 = 500;
/// So many requests under way at once mean that the loop is no longer open but broken.
const MOST_UNDER_WAY: usize = 5_000;

/// A read that is answered 503 is asked again after this, for so long in all.
const RETRY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the one case.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let name = format!("rate-{PER_SECOND}");
    if !arguments.wants(&name) {
        return Ok(());
    }
    let infra = Infra::start(Needs::PostgresAndKafka)?;
    let roles = Builder::new_multi_thread().enable_all().thread_name("roles").build()?;
    let clients = Builder::new_current_thread().enable_all().build()?;
    let all = roles.block_on(start(&infra))?;
    let plan = arguments.plan();
    let seen = clients.block_on(open_loop(all.api.address, plan))?;
    let mut case = Case::new("end-to-end", name, "commands/s");
    let ms = |quantile| Some(seen.visible.value_at_quantile(quantile) as f64 / 1_000.0);
    case.ours = seen.visible.len() as f64 / plan.measured.as_secs_f64();
    (case.p50_ms, case.p99_ms, case.rss_mb) = (ms(0.50), ms(0.99), peak_mb());
    for (name, quantile) in [("answered_p50_ms", 0.50), ("answered_p99_ms", 0.99)] {
        case.note(name, seen.answered.value_at_quantile(quantile) as f64 / 1_000.0);
    }
    case.note("retried_reads", seen.retries as f64);
    report.add(case);
    all.shutdown.cancel();
    drop(all);
    roles.shutdown_timeout(Duration::from_secs(10));
    Ok(())
}

/// All roles, until dropped.
struct Roles {
    api: Serving,
    _registry: Serving,
    _store: EventStore,
    shutdown: CancellationToken,
}

async fn start(infra: &Infra) -> Result<Roles> {
    let metrics = Registry::new();
    let (http, shutdown) = (HttpMetrics::new(&metrics)?, CancellationToken::new());
    let (serving_registry, schemas) = registry::start(infra).await?;

    let service = Service::new("invoicing").aggregate::<Invoice>().aggregate::<CreditNote>();
    let mut options = StoreOptions::new(infra.event_database().await?, APP, service.name());
    options.partitions = PARTITIONS;
    let store = EventStore::open(options, service.aggregates(), &metrics).await?;
    registry::register(&store, &schemas).await?;

    registry::topics(infra).await?;
    let outbox = store.outbox();
    let mut options = RelayOptions::new(infra.kafka(), schemas.url());
    options.lease = outbox.lease();
    tokio::spawn(Relay::new(Arc::new(outbox), options, None).run(shutdown.clone()));

    let (models, read) = (shop_projections::all(), infra.new_database());
    foldstream_tables::migrate(&read, APP, &models).await?;
    let projections = Projections {
        app: APP.to_owned(),
        models: models.clone(),
        read_database_url: read.clone(),
        bootstrap: infra.kafka().to_owned(),
        registry: schemas,
        metrics: ProjectionMetrics::new(&metrics)?,
        session_timeout: Duration::from_secs(45),
    };
    tokio::spawn(projections.run(shutdown.clone()));

    let options = foldstream_queries::Options::new(read, APP, models, [7; 32]);
    let queries = Queries::open(options, QueryMetrics::new(&metrics)?, http.clone())?;
    let commands = CommandMetrics::new(&metrics)?;
    let routes = router(&service, store.clone(), Options::default(), commands, http.clone());
    let api = served::serve(routes.merge(queries.router()), http).await?;
    Ok(Roles { api, _registry: serving_registry, _store: store, shutdown })
}

/// Microseconds from the moment a request was due.
struct Seen {
    answered: hdrhistogram::Histogram<u64>,
    visible: hdrhistogram::Histogram<u64>,
    /// Reads that were answered 503 and asked again.
    retries: u64,
}

/// Connections that are not in use.
type Idle = Arc<Mutex<Vec<Keep>>>;

async fn open_loop(address: SocketAddr, plan: Plan) -> Result<Seen> {
    let template = Template::post("/v1/invoices", "", &served::invoice(NUMBER), 201);
    let idle = Idle::default();
    // The first one waits until everything is up: consumer groups take some seconds to form.
    let numbers = AtomicU64::new(0);
    let next = || numbers.fetch_add(1, Ordering::Relaxed);
    until_visible(address, &template, &idle, next()).await?;
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.measured;
    let mut due = tokio::time::interval(Duration::from_secs(1) / PER_SECOND as u32);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut seen, mut under_way) =
        (Seen { answered: histogram()?, visible: histogram()?, retries: 0 }, JoinSet::new());
    reset_peak();
    loop {
        let at: Instant = due.tick().await.into();
        if at >= end {
            break;
        }
        let (template, idle, number) = (template.clone(), idle.clone(), next());
        under_way.spawn(async move { (at, post_and_read(address, template, idle, number).await) });
        while let Some(ended) = under_way.try_join_next() {
            seen.note(ended?, begin)?;
        }
        ensure!(under_way.len() < MOST_UNDER_WAY, "{PER_SECOND} a second are too many");
    }
    while let Some(ended) = under_way.join_next().await {
        seen.note(ended?, begin)?;
    }
    Ok(seen)
}

impl Seen {
    fn note(&mut self, one: (Instant, Result<Times>), begin: Instant) -> Result<()> {
        let (due, times) = one;
        let Times { answered, visible, retries } = times?;
        if due >= begin {
            let micros = |at: Instant| (at - due).as_micros().try_into().unwrap_or(u64::MAX);
            self.answered.saturating_record(micros(answered));
            self.visible.saturating_record(micros(visible));
            self.retries += retries;
        }
        Ok(())
    }
}

/// When the command was answered, and when its row was, after so many answers of 503.
struct Times {
    answered: Instant,
    visible: Instant,
    retries: u64,
}

/// Posts an invoice, then reads it. Whoever is turned away from reading comes again.
async fn post_and_read(
    address: SocketAddr,
    mut template: Template,
    idle: Idle,
    number: u64,
) -> Result<Times> {
    let free = idle.lock().await.pop();
    let mut keep = match free {
        Some(keep) => keep,
        None => Keep::open(address).await?,
    };
    keep.ask(template.filled(number), 201).await?;
    let answered = Instant::now();
    let token = keep.header("consistency-token").context("an answer without a token")?;
    let request = read(number, token);
    let mut retries = 0;
    let visible = loop {
        match keep.answered(&request).await? {
            200 => break Instant::now(),
            503 if answered.elapsed() < PATIENCE => retries += 1,
            status => bail!("{status} after {:?} and {retries} retries", answered.elapsed()),
        }
        tokio::time::sleep(RETRY).await;
    };
    idle.lock().await.push(keep);
    Ok(Times { answered, visible, retries })
}

fn read(number: u64, token: &str) -> Vec<u8> {
    let width = NUMBER.len();
    format!(
        "GET /v1/invoices/{number:0width$} HTTP/1.1\r\nhost: bench\r\nprefer: wait=5\r\n\
         consistency-token: {token}\r\n\r\n"
    )
    .into_bytes()
}

async fn until_visible(
    address: SocketAddr,
    template: &Template,
    idle: &Idle,
    number: u64,
) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut keep = Keep::open(address).await?;
    keep.ask(template.clone().filled(number), 201).await?;
    let token = keep.header("consistency-token").context("an answer without a token")?.to_owned();
    while let Err(error) = keep.ask(&read(number, &token), 200).await {
        ensure!(Instant::now() < deadline, "the first invoice does not show: {error:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    idle.lock().await.push(keep);
    Ok(())
}
