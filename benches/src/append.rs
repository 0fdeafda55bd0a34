//! `append`: commands into the event store.
//!
//! Ours is `EventStore::execute`. The baseline is one INSERT per command by as many writers through
//! a tuned pool; beside it stand a whole transaction and one under the head lock. The ceiling is
//! COPY in batches of 1,000 into the same table.

use crate::arguments::Arguments;
use crate::infra::{Infra, Needs, peak_mb, reset_peak};
use crate::load::{Client, Plan, Seen, closed_loop};
use crate::notes::{self, ACTOR, EVENT_TYPE, NoteTaken, PARTITIONS, PadEvent, TOPIC};
use crate::plain::{self, Plain, Way};
use crate::report::{Case, Report};
use anyhow::Result;
use foldstream_core::EventSet;
use foldstream_postgres::EventStore;

/// Pads that all writers share in the cases named `hot`.
const HOT: usize = 8;

struct Shape {
    writers: usize,
    /// All writers on 8 pads instead of each on its own.
    hot: bool,
    /// Events per command.
    events: i64,
}

impl Shape {
    fn name(&self) -> String {
        let kind = if self.hot { "hot" } else { "distinct" };
        let events = if self.events == 1 { String::new() } else { format!("x{}", self.events) };
        format!("{kind}-{}{events}", self.writers)
    }
    fn pad(&self, writer: usize) -> String {
        format!("pad-{}", if self.hot { writer % HOT } else { writer })
    }
}

fn shapes() -> Vec<Shape> {
    let distinct = |writers| Shape { writers, hot: false, events: 1 };
    let mut shapes: Vec<Shape> = [1, 8, 32, 128, 512].map(distinct).into();
    shapes.extend([8, 128, 512].map(|writers| Shape { writers, hot: true, events: 1 }));
    shapes.push(Shape { writers: 128, hot: false, events: 10 });
    shapes
}

/// Runs all cases.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let shapes: Vec<Shape> =
        shapes().into_iter().filter(|shape| arguments.wants(&shape.name())).collect();
    if shapes.is_empty() {
        return Ok(());
    }
    let infra = Infra::start(Needs::Postgres)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let plan = arguments.plan();
        let ceiling = ceiling(&infra, plan).await?;
        for shape in shapes {
            report.add(case(&infra, &shape, arguments, ceiling).await?);
        }
        Ok(())
    })
}

/// The better one of COPY over one connection and over as many as the store has writers.
async fn ceiling(infra: &Infra, plan: Plan) -> Result<f64> {
    let mut best: f64 = 0.0;
    for connections in [1, 4] {
        let url = infra.event_database().await?;
        let rate = crate::copy::ceiling(&url, connections, plan).await?;
        eprintln!("  ceiling, COPY over {connections} connections: {rate:.0} events/s");
        infra.drop_database(&url).await?;
        best = best.max(rate);
    }
    Ok(best)
}

async fn case(infra: &Infra, shape: &Shape, arguments: &Arguments, ceiling: f64) -> Result<Case> {
    let mut case = Case::new("append", shape.name(), "events/s");
    eprintln!("  {}", case.case);
    let (seen, cpu) = ours(infra, shape, arguments).await?;
    case.ours = seen.rate;
    case.p50_ms = seen.p50_ms();
    case.p99_ms = seen.p99_ms();
    case.rss_mb = peak_mb();
    case.ceiling = Some(ceiling);
    case.note("cpu_us", cpu);
    let (baseline, cpu) = plain(infra, shape, Way::Insert, arguments).await?;
    case.note("baseline_cpu_us", cpu);
    case.baseline = Some(baseline.rate);
    case.ratio = Some(seen.rate / baseline.rate);
    case.note("baseline_p50_ms", baseline.p50_ms().unwrap_or_default());
    case.note("baseline_p99_ms", baseline.p99_ms().unwrap_or_default());
    let (whole, _) = plain(infra, shape, Way::Transaction, arguments).await?;
    case.note("baseline_transaction", whole.rate);
    let (locked, _) = plain(infra, shape, Way::Locked, arguments).await?;
    case.note("baseline_head_lock", locked.rate);
    Ok(case)
}

/// What was seen, and the microseconds of processor time per event of this process and Postgres.
async fn measure<C: Client>(infra: &Infra, clients: Vec<C>, plan: Plan) -> Result<(Seen, f64)> {
    let before = infra.cpu();
    let seen = closed_loop(clients, plan).await?;
    let cpu = infra.cpu().micros_each(before, seen.units);
    Ok((seen, cpu))
}

/// Gives commands to the event store.
struct Giver {
    store: EventStore,
    pad: String,
    events: i64,
    text: String,
}

impl Client for Giver {
    async fn once(&mut self) -> Result<u64> {
        notes::take(&self.store, &self.pad, self.events, &self.text).await?;
        Ok(self.events as u64)
    }
}

async fn ours(infra: &Infra, shape: &Shape, arguments: &Arguments) -> Result<(Seen, f64)> {
    let plan = arguments.plan();
    let url = infra.event_database().await?;
    let store = notes::open(&url, arguments.writers).await?;
    reset_peak();
    let giver = |writer| Giver {
        store: store.clone(),
        pad: shape.pad(writer),
        events: shape.events,
        text: notes::text(),
    };
    let seen = measure(infra, (0..shape.writers).map(giver).collect(), plan).await?;
    store.close().await;
    infra.drop_database(&url).await?;
    Ok(seen)
}

/// Does the same without the event store.
struct Writer {
    plain: Plain,
    pad: String,
    events: i64,
    text: String,
    version: i64,
}

impl Client for Writer {
    async fn once(&mut self) -> Result<u64> {
        let mut data = Vec::with_capacity(self.events as usize);
        for n in 1..=self.events {
            let note: PadEvent =
                NoteTaken { number: self.version + n, text: self.text.clone() }.into();
            data.push(note.encode()?);
        }
        let command = plain::Command {
            topic: TOPIC,
            partitions: PARTITIONS,
            stream: &self.pad,
            event_type: EVENT_TYPE,
            data,
            metadata: serde_json::json!({ "actor": ACTOR }),
        };
        self.version = self.plain.append(&command, self.version).await?;
        Ok(self.events as u64)
    }
}

async fn plain(
    infra: &Infra,
    shape: &Shape,
    way: Way,
    arguments: &Arguments,
) -> Result<(Seen, f64)> {
    let plan = arguments.plan();
    let url = infra.event_database().await?;
    // Makes the head rows.
    notes::open(&url, None).await?.close().await;
    let pool = plain::pool(&url, shape.writers, arguments.pool).await?;
    let writer = |writer| Writer {
        plain: Plain { pool: pool.clone(), way, shared: shape.hot },
        pad: shape.pad(writer),
        events: shape.events,
        text: notes::text(),
        version: 0,
    };
    let seen = measure(infra, (0..shape.writers).map(writer).collect(), plan).await?;
    pool.close().await;
    infra.drop_database(&url).await?;
    Ok(seen)
}
