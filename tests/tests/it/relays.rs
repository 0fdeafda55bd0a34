//! Relays as processes: they share, die, sleep past their leases and come back, lose their broker;
//! and the topics hold every event, the first occurrences in order, and nothing else.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldstream_core::TopicPartition;
use foldstream_kafka::{Cluster, PartitionReader};
use foldstream_local::Local;
use foldstream_testkit::{eventually, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use system_tests::api::Api;
use system_tests::place::Place;
use system_tests::process::Process;
use system_tests::shop::{DRAIN, Run, command, run};
use system_tests::sql;
use tokio::task::JoinHandle;

const WITHIN: Duration = Duration::from_secs(60);
/// Longer than a lease, which lasts 10 s.
const PAST_LEASE: Duration = Duration::from_secs(40);
const TOPIC: &str = "shop.invoices";
const PARTITIONS: i32 = 8;
/// Events of 300 bytes that wait when the relay begins.
const BACKLOG: u64 = 200_000;
/// What a relay may hold in memory, in MiB, however much waits.
const MOST_MEMORY: u64 = 200;

/// Kafka and Postgres of its own, migrated, and nothing else running.
struct Stage {
    place: Place,
    local: Arc<Local>,
    env: Vec<(String, String)>,
    /// The event database.
    events: String,
}

/// Infrastructure is started and stopped by calls that block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

impl Stage {
    async fn new() -> Self {
        let local = blocking(|| Local::ephemeral(&mut |_| {})).await;
        let local = Arc::new(local.expect("real Kafka and Postgres start"));
        let place = Place::new();
        for database in ["shop_registry", "shop_invoicing", "shop_read"] {
            let create = format!("create database {database} template template0 locale 'C'");
            sql::run(&local.postgres_url("postgres"), &create).await.expect("it is created");
        }
        let events = local.postgres_url("shop_invoicing");
        let env = [
            ("KAFKA_BOOTSTRAP", local.kafka().to_owned()),
            ("SCHEMA_REGISTRY_URL", format!("http://127.0.0.1:{}", free_port())),
            ("REGISTRY_DATABASE_URL", local.postgres_url("shop_registry")),
            ("INVOICING_DATABASE_URL", events.clone()),
            ("READ_DATABASE_URL", local.postgres_url("shop_read")),
        ];
        let env: Vec<(String, String)> = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let migrated = run(&place, &["migrate"], &env, WITHIN).await;
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        let stage = Stage { place, local, env, events };
        // The first process that opens the store makes the heads and the topics.
        let first = stage.relay("first");
        first.is_ready().await;
        first.end();
        stage
    }

    fn relay(&self, name: &str) -> Role {
        let port = free_port();
        let mut env = self.env.clone();
        env.push(("LISTEN_ADMIN".to_owned(), format!("127.0.0.1:{port}")));
        let config = self.place.dir().join("foldstream.toml");
        fs::write(&config, "[outbox]\nwarn_events = 1000\n").expect("it can be written");
        let mut command = command(&["relay"], &env);
        command.arg("--config").arg(config).current_dir(self.place.dir());
        let log = self.place.dir().join(format!("{name}.log"));
        let address = format!("http://127.0.0.1:{port}");
        let process = Process::start(&format!("shop relay ({name})"), command, &log);
        Role { process, admin: Api::new(&address), address }
    }

    /// How many leases each owner holds that are not over, the most first.
    async fn shares(&self) -> Result<Vec<i64>, String> {
        let sql = "select count(*)::text from leases
                   where owner is not null and expires_at > clock_timestamp()
                   group by owner order by count(*) desc";
        let rows = sql::rows(&self.events, sql).await?;
        let number = |row: Vec<Option<String>>| row[0].as_deref().unwrap_or("0").parse().ok();
        Ok(rows.into_iter().filter_map(number).collect())
    }

    async fn shared(&self, wanted: &[i64], within: Duration) {
        eventually(within, &format!("shares are {wanted:?}"), async || {
            let shares = self.shares().await?;
            if shares == wanted { Ok(()) } else { Err(format!("{shares:?}")) }
        })
        .await;
    }

    async fn pending(&self) -> Result<i64, String> {
        let sql = "select sum(h.position - l.position)::bigint from heads h
                   join leases l using (topic, partition)";
        sql::number(&self.events, sql).await
    }

    async fn is_drained_to(&self, most: i64) {
        eventually(WITHIN, "little waits", async || match self.pending().await? {
            pending if pending <= most => Ok(()),
            pending => Err(format!("{pending} wait")),
        })
        .await;
    }

    async fn is_drained(&self, within: Duration) {
        eventually(within, "all is relayed", async || match self.pending().await? {
            0 => Ok(()),
            pending => Err(format!("{pending} wait")),
        })
        .await;
    }

    /// A few events on each partition again and again, until it is ended.
    fn feed(&self) -> JoinHandle<()> {
        let events = self.events.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            loop {
                for partition in 0..PARTITIONS {
                    ticks.tick().await;
                    append(&events, partition, 10).await;
                }
            }
        })
    }

    async fn operate(&self, relay: &Role, args: &[&str]) -> Run {
        let args = [&["outbox"], args, &["--admin", &relay.address]].concat();
        run(&self.place, &args, &[], WITHIN).await
    }

    /// By the raw topic and the event table: first occurrences are the table's, in order; nothing
    /// else is there. How many records there were more.
    async fn topic_is_right(&self) -> usize {
        let mut more = 0;
        for partition in 0..PARTITIONS {
            let sql = format!(
                "select event_id::text from events where topic = '{TOPIC}'
                 and partition = {partition} order by position"
            );
            let stored = sql::rows(&self.events, &sql).await.expect("the table answers");
            let mut first: Vec<String> = Vec::new();
            for (position, id) in self.records(partition).await {
                let place = usize::try_from(position).expect("it fits") - 1;
                match first.get(place) {
                    Some(before) => assert_eq!(*before, id, "a repeat of {position} differs"),
                    None => {
                        assert_eq!(place, first.len(), "{partition}: {position} comes too early");
                        first.push(id);
                    }
                }
                more += 1;
            }
            let stored: Vec<String> =
                stored.into_iter().filter_map(|mut row| row.remove(0)).collect();
            assert_eq!(first, stored, "partition {partition}");
            more -= stored.len();
        }
        more
    }

    /// Positions and event ids in the order of the topic.
    async fn records(&self, partition: i32) -> Vec<(u64, String)> {
        let mut reader = PartitionReader::new(self.local.kafka()).expect("a reader");
        let at = TopicPartition::new(TOPIC, partition);
        let (low, high) = reader.watermarks(&at).await.expect("watermarks");
        let mut records = Vec::new();
        if low == high {
            return records;
        }
        reader.open(&at, low).await.expect("it opens");
        loop {
            let chunk = reader.next(5_000, WITHIN).await.expect("it reads");
            for record in chunk.records {
                let event = record.expect("nothing foreign is in the topic");
                records.push((event.position, event.event_id.to_string()));
            }
            if chunk.at_end {
                return records;
            }
        }
    }
}

/// A relay at work.
struct Role {
    process: Process,
    admin: Api,
    address: String,
}

impl Role {
    async fn is_ready(&self) {
        eventually(WITHIN, "the relay is ready", async || {
            assert_eq!(self.process.ended(), None, "{}", self.process.tail());
            let answer = self.admin.send("GET", "/readyz", &[], None).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.shown()) }
        })
        .await;
    }
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.pid()), signal).expect("it runs");
    }
    /// Ends as asked, having given its leases back.
    fn end(self) {
        assert!(
            self.process.terminate(DRAIN).is_some_and(|s| s.success()),
            "{}",
            self.process.tail()
        );
    }
    /// The sum over all series of a metric.
    async fn metric(&self, name: &str) -> Result<f64, String> {
        let answer = self.admin.send("GET", "/metrics", &[], None).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let own = text.lines().filter(|line| line.starts_with(name));
        let values: Vec<f64> =
            own.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        if values.is_empty() { Err(format!("no {name}")) } else { Ok(values.iter().sum()) }
    }
    /// The most memory it ever had, in MiB.
    fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.expect("the kernel says so") / 1024
    }
}

/// Appends as the store does: positions are given out under the lock of the head row.
async fn append(events: &str, partition: i32, count: u64) -> u64 {
    let head = format!(
        "with head as (
            update heads set position = position + {count}, recorded_at = clock_timestamp()
            where topic = '{TOPIC}' and partition = {partition}
            returning position, recorded_at
         ), added as (
            insert into events (topic, partition, position, stream_id, version, event_id,
                                command_id, ordinal, type, schema_id, data, metadata, recorded_at)
            select '{TOPIC}', {partition}, h.position - {count} + n, {partition} || '-' ||
                   (h.position - {count} + n), 1, gen_random_uuid(), gen_random_uuid(), 0,
                   'shop.invoices.InvoiceIssued', 1, decode(repeat('61', 300), 'hex'), '{{}}',
                   h.recorded_at
            from head h, generate_series(1, {count}) n
            returning 1
         )
         select (position + 0 * (select count(*) from added))::text from head"
    );
    let rows = sql::rows(events, &head).await.expect("it is appended");
    let position = rows.first().and_then(|row| row[0].as_deref()?.parse().ok());
    position.expect("the partition has a head")
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_share_die_sleep_and_come_back_and_the_topic_stays_right() {
    let stage = Stage::new().await;
    let feeding = stage.feed();
    let one = stage.relay("one");
    stage.shared(&[16], WITHIN).await;
    let two = stage.relay("two");
    stage.shared(&[8, 8], WITHIN).await;
    let (_, _) = (one.is_ready().await, two.is_ready().await);

    // Killed: its part is taken over when its leases are over.
    let killed = Instant::now();
    two.process.kill();
    stage.shared(&[16], PAST_LEASE).await;
    println!("taken over {:.1} s after kill -9", killed.elapsed().as_secs_f64());
    one.is_ready().await;

    // Asleep past its leases, awake again with a full producer: it must not do any harm.
    let three = stage.relay("three");
    stage.shared(&[8, 8], WITHIN).await;
    stage.is_drained_to(500).await;
    for partition in 0..PARTITIONS {
        append(&stage.events, partition, 5_000).await;
    }
    let begins = async || stage.pending().await.is_ok_and(|pending| pending < 38_000);
    eventually(WITHIN, "they begin to send", begins).await;
    one.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    stage.shared(&[16], PAST_LEASE).await;
    println!("taken over {:.1} s after SIGSTOP", stopped.elapsed().as_secs_f64());
    three.is_ready().await;
    one.signal(Signal::SIGCONT);
    stage.shared(&[8, 8], WITHIN).await;
    one.is_ready().await;

    feeding.abort();
    stage.is_drained(WITHIN).await;
    let verified = stage.operate(&three, &["verify", "--json"]).await;
    assert_eq!(verified.code, Some(0), "{:?} {}", verified.stdout, verified.stderr);
    let last = verified.json();
    assert_eq!((&last["state"], &last["differences"]), (&"whole".into(), &0.into()), "{last}");
    let (records, repeats) = (last["records"].as_u64(), last["repeats"].as_u64());
    let more = stage.topic_is_right().await as u64;
    assert_eq!(repeats, Some(more));
    println!("{records:?} records, of them {more} repeats");

    // Ended as it should: the other one has all at once, not after a lease.
    three.end();
    stage.shared(&[16], Duration::from_secs(5)).await;
    one.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_one_that_is_long_away_lose_nothing() {
    let stage = Stage::new().await;
    let feeding = stage.feed();
    let relay = stage.relay("relay");
    relay.is_ready().await;
    let local = stage.local.clone();
    blocking(move || local.kill_kafka()).await;
    let local = stage.local.clone();
    blocking(move || local.start_kafka()).await.expect("Kafka starts again");
    relay.is_ready().await;
    // On a slow machine this was an outage that was worth a warning, too.
    let warnings = || relay.process.stderr().lines().filter(|l| l.contains("falls behind")).count();
    eventually(WITHIN, "the relay has caught up", async || {
        let state = relay.metric("outbox_state").await?;
        if state == 0.0 { Ok(()) } else { Err(format!("outbox_state {state}")) }
    })
    .await;
    let before = warnings();

    // The full minute is for those who ask for it; what it shows is shown in less.
    let seconds = std::env::var("FOLDSTREAM_OUTAGE_SECONDS").ok().and_then(|s| s.parse().ok());
    let outage = Duration::from_secs(seconds.unwrap_or(15));
    let local = stage.local.clone();
    blocking(move || local.kill_kafka()).await;
    let away = Instant::now();
    eventually(outage + WITHIN, "the outage lasts, and is said", async || {
        if away.elapsed() < outage {
            return Err("not long enough".to_owned());
        }
        let answer = relay.admin.send("GET", "/readyz", &[], None).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let said = answer.json()["checks"]["outbox of invoicing"]["detail"].clone();
        match said.as_str() {
            Some(said) if said.starts_with("filling: ") && answer.status == 503 => Ok(()),
            _ => Err(answer.shown()),
        }
    })
    .await;
    feeding.abort();
    // Within one scrape the figures are those of the table.
    let oldest = "select extract(epoch from clock_timestamp() - min(e.recorded_at))::bigint
                  from leases l join events e on e.topic = l.topic and e.partition = l.partition
                  and e.position = l.position + 1";
    eventually(Duration::from_secs(10), "the metrics are true", async || {
        let (pending, age) = (stage.pending().await?, sql::number(&stage.events, oldest).await?);
        let said = relay.metric("outbox_pending_events").await?;
        let aged = relay.metric("outbox_oldest_age_seconds").await?;
        let is_true = said == pending as f64 && (aged - age as f64).abs() < 5.0;
        let filling = relay.metric("outbox_state").await? == 1.0;
        if is_true && filling { Ok(()) } else { Err(format!("{said} {pending} {aged} {age}")) }
    })
    .await;
    assert_eq!(warnings() - before, 1, "once, however long it lasts");

    let (local, back) = (stage.local.clone(), Instant::now());
    blocking(move || local.start_kafka()).await.expect("Kafka starts again");
    stage.is_drained(WITHIN).await;
    println!("drained {:.1} s after {outage:?} without a broker", back.elapsed().as_secs_f64());
    relay.is_ready().await;
    stage.topic_is_right().await;
    relay.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_backlog_takes_bounded_memory_and_holds_nobody_up() {
    let stage = Stage::new().await;
    for _ in 0..BACKLOG / 50_000 {
        append(&stage.events, 0, 50_000).await;
    }
    let relay = stage.relay("relay");
    let begun = Instant::now();
    let moves = async || {
        let sql = format!("select position from leases where topic = '{TOPIC}' and partition = 0");
        sql::number(&stage.events, &sql).await
    };
    eventually(WITHIN, "it begins", async || moves().await.is_ok_and(|at| at > 0)).await;
    let (mut slowest, mut looks) = (Duration::ZERO, 0);
    while moves().await.expect("the table answers") < BACKLOG.cast_signed() {
        looks += 1;
        let partition = 1 + looks % (PARTITIONS - 1);
        let (position, appended) = (append(&stage.events, partition, 1).await, Instant::now());
        let sql = format!(
            "select position from leases where topic = '{TOPIC}' and partition = {partition}"
        );
        eventually(WITHIN, "a new event is relayed", async || {
            sql::number(&stage.events, &sql).await.map(|at| at >= position.cast_signed())
        })
        .await;
        slowest = slowest.max(appended.elapsed());
        assert!(begun.elapsed() < WITHIN * 3, "it never ends");
    }
    let (took, peak) = (begun.elapsed().as_secs_f64(), relay.peak_memory());
    println!("{BACKLOG} events in {took:.1} s, at most {peak} MiB; {looks} new ones meanwhile, ");
    println!("the slowest relayed and recorded after {slowest:?}");
    assert!(looks > 0, "the backlog was gone before it could be looked at");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(peak < MOST_MEMORY, "{peak} MiB");
    stage.is_drained(WITHIN).await;
    assert_eq!(stage.topic_is_right().await, 0);
    relay.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_verify_and_repair_the_outbox() {
    let stage = Stage::new().await;
    for partition in 0..PARTITIONS {
        append(&stage.events, partition, 500).await;
    }
    let relay = stage.relay("relay");
    relay.is_ready().await;
    stage.is_drained(WITHIN).await;

    let status = stage.operate(&relay, &["status", "--json", "--topic", TOPIC]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    let shown: Value = serde_json::from_str(&status.stdout.join("\n")).expect("JSON");
    let rows = shown["data"].as_array().expect("rows");
    assert_eq!(rows.len(), 8, "{shown}");
    for row in rows {
        assert_eq!((&row["head"], &row["relayed"]), (&500.into(), &500.into()), "{row}");
        assert_eq!((&row["offset"], &row["pending"]), (&499.into(), &0.into()), "{row}");
        assert!(row["owner"].is_string() && row["lease_expires_at"].is_string(), "{row}");
    }
    let table = stage.operate(&relay, &["status"]).await;
    assert!(table.stdout.iter().any(|line| line.contains("TOPIC")), "{:?}", table.stdout);
    let unknown = stage.operate(&relay, &["verify", "--topic", "shop.none"]).await;
    assert_eq!(unknown.code, Some(4), "{}", unknown.stderr);
    let down =
        run(&stage.place, &["outbox", "verify", "--admin", "http://127.0.0.1:1"], &[], WITHIN);
    assert_eq!(down.await.code, Some(69));

    let whole = stage.operate(&relay, &["verify"]).await;
    assert_eq!(whole.code, Some(0), "{:?} {}", whole.stdout, whole.stderr);
    let cluster = Cluster::new(stage.local.kafka()).expect("a client");
    cluster.delete(&[TOPIC]).await.expect("it is deleted");
    let damaged = stage.operate(&relay, &["verify", "--json"]).await;
    assert_eq!(damaged.code, Some(1), "{:?} {}", damaged.stdout, damaged.stderr);
    assert_eq!(damaged.json()["missing"], 4_000, "{:?}", damaged.stdout);

    let unconfirmed = stage.operate(&relay, &["repair", "--json"]).await;
    assert_eq!(unconfirmed.code, Some(3), "{}", unconfirmed.stderr);
    assert!(cluster.describe(&[TOPIC]).await.is_err(), "nothing was done");
    let repaired = stage.operate(&relay, &["repair", "--yes", "--json"]).await;
    assert_eq!(repaired.code, Some(0), "{:?} {}", repaired.stdout, repaired.stderr);
    let states: Vec<Value> = repaired
        .stdout
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["state"].clone())
        .collect();
    assert_eq!(states.first(), Some(&"verifying".into()), "{states:?}");
    assert_eq!(states.last(), Some(&"whole".into()), "{states:?}");
    let topic = cluster.describe(&[TOPIC]).await.expect("it is there again");
    assert!(topic[0].warnings.is_empty(), "{:?}", topic[0].warnings);
    assert_eq!(topic[0].partitions.len(), 8);
    stage.topic_is_right().await;

    // It goes on from there.
    append(&stage.events, 3, 1).await;
    stage.is_drained(WITHIN).await;
    relay.is_ready().await;
    stage.topic_is_right().await;
    relay.end();
}
