//! `command-http`: invoices of one line over keep-alive connections.
//!
//! Ours are the command routes over the event store. The ceiling is the same server that parses,
//! validates and decides, and leaves only the append out; the baseline appends with a transaction
//! of its own. Server and clients have runtimes of their own in this process.

use crate::arguments::Arguments;
use crate::http_load::{Connection, NUMBER, Template};
use crate::infra::{Infra, Needs, peak_mb, reset_peak};
use crate::load::{Plan, Seen, closed_loop};
use crate::notes;
use crate::plain::{self, Plain, Way};
use crate::report::{Case, Report};
use crate::served::{self, PARTITIONS, Serving, Then};
use anyhow::Result;
use foldstream_commands::{CommandMetrics, Options, Service, router};
use foldstream_postgres::{EventStore, StoreOptions};
use foldstream_service::metrics::HttpMetrics;
use prometheus::Registry;
use shop_invoicing::Invoice;
use tokio::runtime::{Builder, Runtime};

struct Shape {
    connections: usize,
    /// Whether each request has an idempotency key.
    keyed: bool,
}

impl Shape {
    fn name(&self) -> String {
        let keyed = if self.keyed { "-keyed" } else { "" };
        format!("connections-{}{keyed}", self.connections)
    }
    fn template(&self, status: u16) -> Template {
        let key = format!("idempotency-key: bench-{NUMBER}\r\n");
        let headers = if self.keyed { &key } else { "" };
        Template::post("/v1/invoices", headers, &served::invoice(NUMBER), status)
    }
}

const SHAPES: [Shape; 3] = [
    Shape { connections: 64, keyed: false },
    Shape { connections: 256, keyed: false },
    Shape { connections: 64, keyed: true },
];

/// Runs all cases.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let shapes: Vec<&Shape> =
        SHAPES.iter().filter(|shape| arguments.wants(&shape.name())).collect();
    if shapes.is_empty() {
        return Ok(());
    }
    let infra = Infra::start(Needs::Postgres)?;
    for shape in shapes {
        report.add(case(&infra, shape, arguments)?);
    }
    Ok(())
}

fn case(infra: &Infra, shape: &Shape, arguments: &Arguments) -> Result<Case> {
    let plan = arguments.plan();
    let mut case = Case::new("command-http", shape.name(), "requests/s");
    eprintln!("  {}", case.case);
    let before = infra.cpu();
    let ours = ours(infra, shape, arguments)?;
    case.note("cpu_us", infra.cpu().micros_each(before, ours.units));
    case.ours = ours.rate;
    case.p50_ms = ours.p50_ms();
    case.p99_ms = ours.p99_ms();
    case.rss_mb = peak_mb();
    let before = infra.cpu();
    let ceiling = without_store(shape, plan, 201, || async { Ok(Some(Then::Nothing)) })?;
    case.note("ceiling_cpu_us", infra.cpu().micros_each(before, ceiling.units));
    case.ceiling = Some(ceiling.rate);
    case.ratio = Some(ours.rate / ceiling.rate);
    let url = infra.new_database();
    let before = infra.cpu();
    let baseline = without_store(shape, plan, 201, || async {
        foldstream_postgres::migrate(&url).await?;
        let pool = plain::pool(&url, shape.connections, arguments.pool).await?;
        Ok(Some(Then::Transaction(Plain { pool, way: Way::Transaction, shared: false })))
    })?;
    case.note("baseline_cpu_us", infra.cpu().micros_each(before, baseline.units));
    case.baseline = Some(baseline.rate);
    Builder::new_current_thread().enable_all().build()?.block_on(infra.drop_database(&url))?;
    let hello = without_store(shape, plan, 200, || async { Ok(None) })?;
    case.note("hello", hello.rate);
    Ok(case)
}

fn runtimes() -> Result<(Runtime, Runtime)> {
    let server = Builder::new_multi_thread().enable_all().thread_name("server").build()?;
    let clients = Builder::new_current_thread().enable_all().build()?;
    Ok((server, clients))
}

/// The clients against a server.
fn measure(
    clients: &Runtime,
    serving: &Serving,
    shape: &Shape,
    plan: Plan,
    status: u16,
) -> Result<Seen> {
    clients.block_on(async {
        let template = shape.template(status);
        let all = Connection::open_all(serving.address, &template, shape.connections).await?;
        closed_loop(all, plan).await
    })
}

fn ours(infra: &Infra, shape: &Shape, arguments: &Arguments) -> Result<Seen> {
    let (server, clients) = runtimes()?;
    let url = server.block_on(infra.event_database())?;
    let service = Service::new("invoicing").aggregate::<Invoice>();
    let registry = Registry::new();
    let (serving, store) = server.block_on(async {
        let mut options = StoreOptions::new(&url, "shop", service.name());
        options.partitions = PARTITIONS;
        options.writers = arguments.writers.unwrap_or(options.writers);
        // No relay drains it.
        options.limits.backlog_events = u64::MAX;
        let store = EventStore::open(options, service.aggregates(), &registry).await?;
        notes::learn(&store).await?;
        let http = HttpMetrics::new(&registry)?;
        let metrics = CommandMetrics::new(&registry)?;
        let routes = router(&service, store.clone(), Options::default(), metrics, http.clone());
        anyhow::Ok((served::serve(routes, http).await?, store))
    })?;
    reset_peak();
    let seen = measure(&clients, &serving, shape, arguments.plan(), 201)?;
    drop(serving);
    server.block_on(async {
        store.close().await;
        infra.drop_database(&url).await
    })?;
    Ok(seen)
}

/// A server that does this, or only says hello.
fn without_store<F: Future<Output = Result<Option<Then>>>>(
    shape: &Shape,
    plan: Plan,
    status: u16,
    then: impl FnOnce() -> F,
) -> Result<Seen> {
    let (server, clients) = runtimes()?;
    let http = HttpMetrics::new(&Registry::new())?;
    let serving = server.block_on(async {
        let routes = match then().await? {
            Some(then) => served::invoices(then, http.clone()),
            None => served::hello(),
        };
        served::serve(routes, http).await
    })?;
    measure(&clients, &serving, shape, plan, status)
}
