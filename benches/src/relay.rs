//! `relay`: a backlog in the event table on its way to Kafka.
//!
//! Ours is the relay over the Postgres outbox: claims, takeover, contiguous reads,
//! acknowledgements,
//! progress. The ceiling is a bare producer that sends the very records that the relay produced
//! (key, value, headers, timestamp) into a topic of the same settings, from memory.

use crate::arguments::Arguments;
use crate::copy::{self, NOTES};
use crate::infra::{Infra, Needs, peak_mb, reset_peak};
use crate::notes::{self, PARTITIONS, TOPIC};
use crate::report::{Case, Report};
use anyhow::{Context, Result, bail, ensure};
use foldstream_kafka::{Cluster, Relay, RelayOptions, TopicSpec};
use foldstream_postgres::EventStore;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const REGISTRY: &str = "http://127.0.0.1:8081";
/// The bare producer sends so many different records over and over.
const SAMPLE: usize = 100_000;
const CEILING_TOPIC: &str = "bench.ceiling";
/// Draining a backlog may take this long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs the one case.
pub(crate) fn run(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (events, rounds) = if arguments.quick { (100_000, 1) } else { (1_000_000, 3) };
    let name = format!("backlog-{events}");
    if !arguments.wants(&name) {
        return Ok(());
    }
    let infra = Infra::start(Needs::PostgresAndKafka)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    report.add(runtime.block_on(case(&infra, name, events, rounds))?);
    Ok(())
}

async fn case(infra: &Infra, name: String, events: u32, rounds: u32) -> Result<Case> {
    let url = infra.event_database().await?;
    let cluster = Cluster::new(infra.kafka())?;
    notes::open(&url, None).await?.close().await;
    eprintln!("  loading {events} events");
    copy::backlog(&url, &NOTES, events.into(), i64::from(events) / 10).await?;
    let (mut ours, mut ceilings, mut bare, mut peak) = (vec![], vec![], vec![], None);
    let (mut cpu, mut ceiling_cpu) = (vec![], vec![]);
    for round in 1..=rounds {
        new_topic(&cluster, TOPIC).await?;
        forget(&url).await?;
        reset_peak();
        let store = notes::open(&url, None).await?;
        let before = infra.cpu();
        ours.push(drain(infra, &store, REGISTRY, events.into()).await?);
        cpu.push(infra.cpu().micros_each(before, events.into()));
        store.close().await;
        peak = peak.or_else(peak_mb);
        let bootstrap = infra.kafka().to_owned();
        let sample = blocking({
            let bootstrap = bootstrap.clone();
            move || sample(&bootstrap)
        })
        .await?;
        let sample = Arc::new(sample);
        for (figures, headers) in [(&mut ceilings, true), (&mut bare, false)] {
            new_topic(&cluster, CEILING_TOPIC).await?;
            let (bootstrap, sample) = (bootstrap.clone(), sample.clone());
            let before = infra.cpu();
            figures.push(blocking(move || produce(&bootstrap, &sample, events, headers)).await?);
            if headers {
                ceiling_cpu.push(infra.cpu().micros_each(before, events.into()));
            }
        }
        let last = |figures: &[f64]| figures.last().copied().unwrap_or_default();
        eprintln!(
            "  round {round}: relay {:.0}, bare producer {:.0}, without headers {:.0} events/s; \
             relay with Postgres {:.2}, bare producer {:.2} µs of CPU per event",
            last(&ours),
            last(&ceilings),
            last(&bare),
            last(&cpu),
            last(&ceiling_cpu)
        );
    }
    let mut case = Case::new("relay", name, "events/s");
    (case.ours, case.ceiling) = (median(ours), Some(median(ceilings)));
    case.ratio = case.ceiling.map(|ceiling| case.ours / ceiling);
    // Later rounds would count what the sample left with the allocator.
    case.rss_mb = peak;
    case.note("ceiling_without_headers", median(bare));
    case.note("cpu_us_per_event", median(cpu));
    case.note("ceiling_cpu_us_per_event", median(ceiling_cpu));
    Ok(case)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread ended")?
}

/// The topic without records, with the settings that Foldstream gives its topics.
async fn new_topic(cluster: &Cluster, name: &str) -> Result<()> {
    let spec = [TopicSpec::new(name, PARTITIONS)];
    if cluster.describe(&[name]).await.is_ok_and(|found| !found.is_empty()) {
        cluster.delete(&[name]).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // A topic that is being deleted is there for a moment more.
        match cluster.ensure(&spec).await {
            Ok(ensured) if !ensured.created.is_empty() => return Ok(()),
            Ok(_) if Instant::now() < deadline => {}
            Err(_) if Instant::now() < deadline => {}
            Ok(_) => bail!("the old topic {name} does not go away"),
            Err(error) => bail!(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As if nothing had been relayed yet.
async fn forget(url: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let forget = "update leases set position = 0, \"offset\" = null, owner = null,
                  expires_at = null, pid = null, backend_start = null";
    sqlx::raw_sql(forget).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Events per second from the start of the relay to the last acknowledgement.
pub(crate) async fn drain(
    infra: &Infra,
    store: &EventStore,
    registry: &str,
    events: u64,
) -> Result<f64> {
    let outbox = store.outbox();
    let mut options = RelayOptions::new(infra.kafka(), registry);
    options.lease = outbox.lease();
    let relay = Relay::new(Arc::new(outbox), options, None);
    let (watch, shutdown) = (relay.watch(), CancellationToken::new());
    let begun = Instant::now();
    let running = tokio::spawn(relay.run(shutdown.clone()));
    let acknowledged = || watch.status().partitions.iter().map(|p| p.acknowledged).sum::<u64>();
    while acknowledged() < events {
        ensure!(begun.elapsed() < PATIENCE, "not drained: {:?}", watch.status());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    shutdown.cancel();
    running.await.context("the relay ended")?;
    Ok(events as f64 / took.as_secs_f64())
}

/// Records as the relay produced them, from all partitions.
fn sample(bootstrap: &str) -> Result<Vec<OwnedMessage>> {
    let consumer = consumer(bootstrap, TOPIC)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut records = Vec::with_capacity(SAMPLE);
    while records.len() < SAMPLE {
        ensure!(Instant::now() < deadline, "only {} records in the topic", records.len());
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            records.push(record?.detach());
        }
    }
    Ok(records)
}

/// A bare consumer of a whole topic.
pub(crate) fn consumer(bootstrap: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench-sample")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut from = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        from.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&from)?;
    Ok(consumer)
}

/// Counts what was acknowledged, and what was not.
#[derive(Default)]
struct Counting {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Counting {}
impl ProducerContext for Counting {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Events per second by a bare producer, polled on the thread that sends.
fn produce(bootstrap: &str, sample: &[OwnedMessage], events: u32, headers: bool) -> Result<f64> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.codec", "zstd")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500000");
    let producer = BaseProducer::from_config_and_context(&config, Counting::default())?;
    let begun = Instant::now();
    for (number, record) in (0..events).zip(sample.iter().cycle()) {
        let mut next = BaseRecord::to(CEILING_TOPIC)
            .partition(record.partition())
            .key(record.key().unwrap_or_default())
            .payload(record.payload().unwrap_or_default());
        if let Some(time) = record.timestamp().to_millis() {
            next = next.timestamp(time);
        }
        if let (true, Some(all)) = (headers, record.headers()) {
            next = next.headers(all.clone());
        }
        while let Err((error, back)) = producer.send(next) {
            let KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) = error else {
                bail!(error);
            };
            producer.poll(Duration::from_millis(5));
            next = back;
        }
        if number % 256 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE)?;
    let took = begun.elapsed();
    let (delivered, failed) = (&producer.context().delivered, &producer.context().failed);
    let delivered = delivered.load(Ordering::Relaxed);
    ensure!(delivered == u64::from(events), "{delivered} of {events} were acknowledged");
    ensure!(failed.load(Ordering::Relaxed) == 0, "some were not");
    Ok(f64::from(events) / took.as_secs_f64())
}
