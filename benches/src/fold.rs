//! `fold`: a topic of invoices into a keyed and an additive read model.
//!
//! Ours are the projections as they run in production, from the first checkpoint to the last. The
//! ceiling is a bare consumer that reads the same topic and drops it; the baseline folds event by
//! event with a transaction each.

use crate::arguments::Arguments;
use crate::copy::{self, Kind};
use crate::infra::{Infra, Needs, peak_mb, reset_peak};
use crate::load::{Client, Plan, closed_loop};
use crate::registry::{self, APP};
use crate::relay::{blocking, consumer, drain};
use crate::report::{Case, Report};
use crate::served::{EVENT_TYPE, PARTITIONS, TOPIC};
use anyhow::{Context, Result, ensure};
use foldstream_commands::Service;
use foldstream_core::{AnyReadModel, EventSet, Money, Timestamp, read_model};
use foldstream_kafka::SchemaRegistry;
use foldstream_postgres::{EventStore, StoreOptions};
use foldstream_projections::{ProjectionMetrics, Projections, status};
use prometheus::Registry;
use shop_invoicing::{CreditNote, Invoice};
use shop_projections::{invoices::InvoiceRow, sales_by_day::SalesByDay};
use shop_schemas::documents::{Country, Currency, CustomerId, Description, Line, Sku};
use shop_schemas::invoices::{InvoiceEvent, InvoiceIssued};
use sqlx::{Connection, PgConnection, PgPool};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Folding a topic may take this long.
const PATIENCE: Duration = Duration::from_secs(600);
const DAY: i64 = 86_400_000_000;

/// Runs the one case.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let events: u32 = if arguments.quick { 100_000 } else { 1_000_000 };
    let name = format!("two-models-{events}");
    if !arguments.wants(&name) {
        return Ok(());
    }
    let infra = Infra::start(Needs::PostgresAndKafka)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    report.add(runtime.block_on(case(&infra, name, events, arguments.plan()))?);
    Ok(())
}

async fn case(infra: &Infra, name: String, events: u32, plan: Plan) -> Result<Case> {
    let (_serving, schemas) = registry::start(infra).await?;
    fill(infra, &schemas, events).await?;
    let mut case = Case::new("fold", name, "events/s");
    reset_peak();
    let before = infra.cpu();
    case.ours = fold(infra, schemas, events).await?;
    case.note("cpu_us", infra.cpu().micros_each(before, events.into()));
    case.rss_mb = peak_mb();
    let bootstrap = infra.kafka().to_owned();
    let ceiling = blocking(move || consume(&bootstrap, events)).await?;
    let baseline = one_by_one(infra, plan).await?;
    (case.ceiling, case.baseline) = (Some(ceiling), Some(baseline));
    case.ratio = Some(case.ours / ceiling);
    case.note("to_baseline", case.ours / baseline);
    Ok(case)
}

/// An invoice of two lines, on one of 300 days.
fn invoice(number: i64) -> Result<InvoiceIssued> {
    const COUNTRIES: [&str; 4] = ["United Kingdom", "France", "Germany", "Eire"];
    let day = Timestamp::from_micros(1_291_191_960_000_000 + number % 300 * DAY);
    let country = COUNTRIES[usize::try_from(number % 4)?];
    let line = |sku: &str, quantity| -> Result<Line> {
        Ok(Line {
            sku: Sku::parse(sku)?,
            description: Description::parse("WHITE HANGING HEART T-LIGHT HOLDER")?,
            quantity,
            unit_price: Money::units(3),
        })
    };
    Ok(InvoiceIssued {
        issued_at: day.context("a day of our time")?,
        customer_id: Some(CustomerId::parse(&format!("{}", 10_000 + number % 4_000))?),
        country: Country::parse(country)?,
        currency: Currency::parse("GBP")?,
        lines: vec![line("85123A", 1 + number % 12)?, line("22423", 1)?],
    })
}

fn datum(number: i64) -> Result<Vec<u8>> {
    Ok(InvoiceEvent::from(invoice(number)?).encode()?)
}

/// Fills the topic, by way of the event table and the relay.
async fn fill(infra: &Infra, schemas: &SchemaRegistry, events: u32) -> Result<()> {
    let url = infra.event_database().await?;
    let service = Service::new("invoicing").aggregate::<Invoice>().aggregate::<CreditNote>();
    let mut options = StoreOptions::new(&url, APP, service.name());
    options.partitions = PARTITIONS;
    let store = EventStore::open(options, service.aggregates(), &Registry::new()).await?;
    let ids = registry::register(&store, schemas).await?;
    let id = ids.iter().find(|(name, _)| name == EVENT_TYPE).map(|(_, id)| *id);
    let schema = id.context("the schema of invoices")?;
    let kind = Kind { topic: TOPIC, event_type: EVENT_TYPE, schema, datum };
    eprintln!("  loading {events} events");
    copy::backlog(&url, &kind, events.into(), i64::from(events) / 10).await?;
    registry::topics(infra).await?;
    let rate = drain(infra, &store, schemas.url(), events.into()).await?;
    eprintln!("  relayed at {rate:.0} events/s");
    store.close().await;
    infra.drop_database(&url).await
}

/// Events per second into both read models, from the first checkpoint on: how long a consumer
/// group takes to form does not depend on the number of events.
async fn fold(infra: &Infra, schemas: SchemaRegistry, events: u32) -> Result<f64> {
    let models: Vec<Arc<dyn AnyReadModel>> =
        vec![read_model::<InvoiceRow>(), read_model::<SalesByDay>()];
    let (read, all) = (infra.new_database(), 2 * i64::from(events));
    foldstream_tables::migrate(&read, APP, &models).await?;
    let pool = foldstream_tables::pool(&read, 1, Duration::from_secs(5))?;
    let projections = Projections {
        app: APP.to_owned(),
        models,
        read_database_url: read,
        bootstrap: infra.kafka().to_owned(),
        registry: schemas,
        metrics: ProjectionMetrics::new(&Registry::new())?,
        session_timeout: Duration::from_secs(45),
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(projections.run(shutdown.clone()));
    let begun = Instant::now();
    let mut first = None;
    let rate = loop {
        let folded = folded(&pool).await?;
        let (began, before) = *first.get_or_insert((Instant::now(), folded));
        if before == 0 {
            first = None;
        }
        if folded >= all {
            let took = began.elapsed().as_secs_f64();
            break (all - before) as f64 / 2.0 / took;
        }
        ensure!(begun.elapsed() < PATIENCE, "only {folded} of {all} are folded");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    shutdown.cancel();
    running.await.context("the projections ended")??;
    Ok(rate)
}

/// Events that are folded, over all read models.
async fn folded(pool: &PgPool) -> Result<i64> {
    Ok(status(pool).await?.iter().map(|build| build.position).sum())
}

/// Records per second that a bare consumer reads and drops.
fn consume(bootstrap: &str, events: u32) -> Result<f64> {
    let consumer = consumer(bootstrap, TOPIC)?;
    let (mut read, mut begun) = (0, Instant::now());
    while read < events {
        ensure!(begun.elapsed() < PATIENCE, "only {read} of {events} were read");
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            record?;
            if read == 0 {
                begun = Instant::now();
            }
            read += 1;
        }
    }
    Ok(f64::from(events) / begun.elapsed().as_secs_f64())
}

const TABLES: &str = "
    create table documents (invoice_id text primary key, issued_at timestamptz, customer_id text,
        country text, currency text, lines bigint, units bigint, amount numeric(28, 4));
    create table days (day date, country text, currency text, invoices bigint, units bigint,
        gross numeric(28, 4), primary key (day, country, currency));
    create table checkpoint (position bigint not null);
    insert into checkpoint values (0)";
const DOCUMENT: &str = "
    insert into documents values ($1, $2::text::timestamptz, $3, $4, $5, $6, $7, $8::text::numeric)
    on conflict (invoice_id) do update set issued_at = excluded.issued_at,
        customer_id = excluded.customer_id, country = excluded.country,
        currency = excluded.currency, lines = excluded.lines, units = excluded.units,
        amount = excluded.amount";
const DAY_ROW: &str = "
    insert into days values ($1::text::timestamptz::date, $2, $3, 1, $4, $5::text::numeric)
    on conflict (day, country, currency) do update set invoices = days.invoices + 1,
        units = days.units + excluded.units, gross = days.gross + excluded.gross";

/// Folds one event after the other, each with its checkpoint in a transaction.
struct OneByOne {
    connection: PgConnection,
    number: i64,
}

impl Client for OneByOne {
    async fn once(&mut self) -> Result<u64> {
        let event = invoice(self.number)?;
        let (issued_at, amount) =
            (event.issued_at.to_string(), shop_schemas::documents::amount(&event.lines));
        let (amount, units) = (amount.to_string(), shop_schemas::documents::units(&event.lines));
        let mut transaction = self.connection.begin().await?;
        sqlx::query(DOCUMENT)
            .bind(format!("stream-{}", self.number % 100_000))
            .bind(&issued_at)
            .bind(event.customer_id.as_ref().map(CustomerId::as_str))
            .bind(event.country.as_str())
            .bind(event.currency.as_str())
            .bind(i64::try_from(event.lines.len())?)
            .bind(units)
            .bind(&amount)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(DAY_ROW)
            .bind(&issued_at)
            .bind(event.country.as_str())
            .bind(event.currency.as_str())
            .bind(units)
            .bind(&amount)
            .execute(&mut *transaction)
            .await?;
        let move_on = sqlx::query("update checkpoint set position = $1").bind(self.number);
        move_on.execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.number += 1;
        Ok(1)
    }
}

async fn one_by_one(infra: &Infra, plan: Plan) -> Result<f64> {
    let mut connection = PgConnection::connect(&infra.empty_database().await?).await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    Ok(closed_loop(vec![OneByOne { connection, number: 0 }], plan).await?.rate)
}
