//! Snapshots and the cache make loads fast; with or without them the state is the same.

use crate::accounts::{Account, Deposit, EVERY, Withdraw, command, deposit, open, withdraw};
use crate::carts::{check_table, connection, database, options, version};
use foldstream_core::{StreamRef, Uuid};
use foldstream_postgres::{EventStore, Execute, StoreOptions, Until};
use foldstream_testkit::{TestDatabase, eventually};
use sqlx::PgConnection;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

/// xorshift64*: the same numbers for the same seed.
struct Seeded(u64);
impl Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

fn switched(database: &TestDatabase, cache: bool, snapshots: bool) -> StoreOptions {
    let mut options = options(database);
    options.snapshots = snapshots;
    options.timings.connect = Duration::from_secs(10);
    if !cache {
        options.limits.cached_states = 0;
    }
    options
}

async fn state(store: &EventStore, account: &str, until: Until) -> Option<(u64, Account)> {
    let stream = store.stream("accounts", account).unwrap();
    let found = store.state(&stream, until).await.unwrap();
    found.map(|(version, state)| (version, state.downcast_ref::<Account>().unwrap().clone()))
}

/// Versions of the snapshots that are there.
async fn kept(table: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query_as("select stream_id, version from snapshots order by stream_id")
        .fetch_all(table)
        .await
        .unwrap()
}

async fn wait_for(table: &mut PgConnection, account: &str, version: i64) {
    eventually(LONG, "the snapshot is kept", async || {
        kept(table).await.contains(&(account.to_owned(), version))
    })
    .await;
}

fn account(n: u64) -> String {
    format!("account-{n}")
}

fn random_command(random: &mut Seeded, n: u64) -> Execute {
    let to = account(random.below(6));
    let amount = random.below(100) as i64;
    let mut execute = match random.below(3) {
        0 => command(&to, Withdraw { amount: amount * 3 }),
        1 => command(&to, Deposit { amount, parts: random.below(4) as usize }),
        _ => deposit(&to, amount),
    };
    execute.at.command_id = Uuid::from_u128(u128::from(n) + 1);
    execute
}

/// Runs the commands that follow from the seed through two processes that end now and then;
/// answers all verdicts and states.
async fn run(database: &TestDatabase, seed: u64, cache: bool, snapshots: bool) -> Vec<String> {
    let fresh = || async { open(switched(database, cache, snapshots)).await };
    let mut stores = [fresh().await, fresh().await];
    let mut table = connection(database).await;
    let (mut random, mut seen) = (Seeded(seed), Vec::new());
    for n in 0..250 {
        let execute = random_command(&mut random, n);
        let (place, ends) = (random.below(8).min(1) as usize, random.below(40) == 0);
        let executed = stores[place].execute(execute).await.unwrap();
        seen.push(format!("{:?} {}", executed.verdict, executed.token.positions.len()));
        if ends {
            stores[place].close().await;
            stores[place] = fresh().await;
            let to = account(random.below(6));
            let latest = state(&stores[place], &to, Until::Latest).await;
            let Some((last, _)) = latest else { continue };
            let at = Until::Version(1 + random.below(last));
            seen.push(format!("{latest:?} {:?}", state(&stores[place], &to, at).await));
        }
    }
    if snapshots {
        eventually(LONG, "all accounts have snapshots", async || kept(&mut table).await.len() == 6)
            .await;
    }
    stores[0] = fresh().await;
    for n in 0..6 {
        let stream = stores[0].stream("accounts", &account(n)).unwrap();
        let history = stores[0].history(&stream, 1, 1_000).await.unwrap();
        // Steps that meet every distance from a snapshot.
        for entry in history.into_iter().step_by(5) {
            let version = entry.record.version;
            let then = state(&stores[0], &account(n), Until::Version(version)).await;
            assert_eq!(then.as_ref().map(|(version, _)| *version), Some(version));
            // Events of one append share their time.
            let at = Until::Instant(entry.record.recorded_at);
            let (reached, by_time) = state(&stores[0], &account(n), at).await.unwrap();
            assert!(reached >= version);
            let again = state(&stores[0], &account(n), Until::Version(reached)).await;
            assert_eq!(again, Some((reached, by_time)));
            seen.push(format!("{then:?}"));
        }
    }
    check_table(&mut table).await;
    let taken = kept(&mut table).await;
    assert_eq!(!taken.is_empty(), snapshots, "{taken:?}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_and_states_are_the_same_without_cache_and_snapshots() {
    for seed in [1, 20_111_209] {
        // Dropped together at the end: to drop one holds up the thread, and waits for connections
        // that the other runs are just making on it.
        let mut databases = Vec::new();
        for _ in 0..4 {
            databases.push(database("switches").await);
        }
        let (neither, both, cache, snapshots) = tokio::join!(
            run(&databases[0], seed, false, false),
            run(&databases[1], seed, true, true),
            run(&databases[2], seed, true, false),
            run(&databases[3], seed, false, true),
        );
        assert!(neither.iter().any(|seen| seen.contains("too-little")), "seed {seed}");
        assert_eq!(neither, both, "seed {seed}, both");
        assert_eq!(neither, cache, "seed {seed}, the cache alone");
        assert_eq!(neither, snapshots, "seed {seed}, snapshots alone");
    }
}

#[tokio::test]
async fn snapshots_follow_the_policy_and_only_newer_ones_are_kept() {
    let database = database("policy").await;
    let (one, two) = (open(options(&database)).await, open(options(&database)).await);
    let mut table = connection(&database).await;
    for n in 1..EVERY {
        assert_eq!(version(&one.execute(deposit("a", 1)).await), n);
    }
    version(&one.execute(command("a", Deposit { amount: 1, parts: 3 })).await);
    wait_for(&mut table, "a", 9).await;
    // Another process starts from there.
    for _ in 0..EVERY {
        version(&two.execute(deposit("a", 1)).await);
    }
    wait_for(&mut table, "a", 16).await;
    // The first one knows of 9 only; what it offers is newer again, or is not kept.
    version(&one.execute(deposit("a", 1)).await);
    wait_for(&mut table, "a", 17).await;
    // Carts ask for none.
    version(&one.execute(crate::carts::command("c", many_items())).await);
    assert_eq!(kept(&mut table).await, [("a".to_owned(), 17)]);
}

fn many_items() -> crate::carts::AddItems {
    crate::carts::AddItems { sku: "x".into(), count: 50 }
}

/// What is made of a good snapshot at version 8 of 10, and whether that shows in what it says.
const BAD: [(&str, &str); 8] = [
    ("cut off", "state = substr(state, 1, 20)"),
    ("empty", "state = ''"),
    ("no text", "state = '\\xff00'"),
    ("of other fields", "state = '{\"balance\": 5}'"),
    ("of another schema", "schema_version = 1, state = replace_balance(state)"),
    ("of a later schema", "schema_version = 3, state = replace_balance(state)"),
    ("past the stream's end", "version = 11, position = 11, state = replace_balance(state)"),
    ("of another history", "position = 9, state = replace_balance(state)"),
];

#[tokio::test]
async fn a_broken_foreign_or_too_new_snapshot_is_ignored_and_replaced() {
    let database = database("bad").await;
    let mut table = connection(&database).await;
    sqlx::raw_sql(
        "create function replace_balance(state bytea) returns bytea language sql return
            convert_to(replace(convert_from(state, 'UTF8'), '\"balance\":', '\"balance\":9'),
                       'UTF8')",
    )
    .execute(&mut table)
    .await
    .unwrap();
    for (n, (what, change)) in BAD.into_iter().enumerate() {
        // Each in a partition of its own: positions are versions.
        let name = own_partition(n);
        let store = open(options(&database)).await;
        version(&store.execute(command(&name, Deposit { amount: 10, parts: 8 })).await);
        wait_for(&mut table, &name, 8).await;
        version(&store.execute(command(&name, Deposit { amount: 1, parts: 2 })).await);
        let good = state(&store, &name, Until::Latest).await;
        store.close().await;
        let update = format!("update snapshots set {change} where stream_id = $1");
        let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(&name);
        assert_eq!(update.execute(&mut table).await.unwrap().rows_affected(), 1, "{what}");

        let store = open(options(&database)).await;
        assert_eq!(state(&store, &name, Until::Latest).await, good, "{what}");
        let refused = store.execute(withdraw(&name, 83)).await.unwrap().verdict;
        assert!(format!("{refused:?}").contains("only 82 cents"), "{what}: {refused:?}");
        eventually(LONG, what, async || {
            let whole: i64 = sqlx::query_scalar(
                "select count(*) from snapshots where stream_id = $1 and schema_version = 2
                    and version = 10 and convert_from(state, 'UTF8') like '{\"balance\":82,%'",
            )
            .bind(&name)
            .fetch_one(&mut table)
            .await
            .unwrap();
            whole == 1
        })
        .await;
        let (_, after) = state(&store, &name, Until::Version(10)).await.unwrap();
        assert_eq!(Some((10, after)), good, "{what}");
        assert_eq!(version(&store.execute(withdraw(&name, 82)).await), 11, "{what}");
        store.close().await;
    }
}

fn own_partition(n: usize) -> String {
    let in_it = |name: &String| foldstream_core::partition_of(name, 8) == n as i32;
    (0..).map(account).find(in_it).unwrap()
}

/// Adds events to a stream as fast as the database can.
async fn lengthen(table: &mut PgConnection, stream: &StreamRef, events: i64) {
    let partition = foldstream_core::partition_of(&stream.stream_id, 8);
    sqlx::query(
        "insert into events
         select topic, partition, position + n, stream_id, version + n, gen_random_uuid(),
                gen_random_uuid(), 0, type, schema_id, data, metadata, recorded_at
         from events, generate_series(1, $2) n where stream_id = $1 and version = 1",
    )
    .bind(&stream.stream_id)
    .bind(events)
    .execute(&mut *table)
    .await
    .unwrap();
    sqlx::query("update heads set position = position + $2 where topic = $3 and partition = $1")
        .bind(partition)
        .bind(events)
        .bind(&stream.topic)
        .execute(&mut *table)
        .await
        .unwrap();
    sqlx::raw_sql("analyze events").execute(table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_loads_at_once_from_its_snapshot_and_in_pages_without() {
    let database = database("long").await;
    let mut table = connection(&database).await;
    let plain = open(switched(&database, true, false)).await;
    let stream = plain.stream("accounts", "a").unwrap();
    version(&plain.execute(deposit("a", 1)).await);
    lengthen(&mut table, &stream, 99_999).await;

    // No single call lasts so long as the whole: it is read in pages.
    let mut impatient = switched(&database, false, false);
    impatient.timings.call = Duration::from_millis(400);
    let impatient = open(impatient).await;
    let start = Instant::now();
    let folded = state(&impatient, "a", Until::Latest).await.unwrap();
    let by_pages = start.elapsed();
    assert_eq!((folded.0, folded.1.balance), (100_000, 100_000));
    // A caller that waits no longer ends it.
    let given_up = tokio::time::timeout(by_pages / 10, impatient.state(&stream, Until::Latest));
    assert!(given_up.await.is_err());
    assert!(impatient.check().await.is_ok());

    let start = Instant::now();
    assert_eq!(version(&plain.execute(withdraw("a", 1)).await), 100_001);
    let first_command = start.elapsed();
    assert!(kept(&mut table).await.is_empty());
    let taking = open(options(&database)).await;
    assert_eq!(version(&taking.execute(withdraw("a", 1)).await), 100_002);
    wait_for(&mut table, "a", 100_002).await;

    let fresh = open(options(&database)).await;
    // The first use of a connection is not what is measured.
    fresh.check().await.unwrap();
    version(&fresh.execute(deposit("b", 1)).await);
    let start = Instant::now();
    let (reached, loaded) = state(&fresh, "a", Until::Latest).await.unwrap();
    let by_snapshot = start.elapsed();
    let start = Instant::now();
    assert_eq!(version(&fresh.execute(withdraw("a", 1)).await), 100_003);
    let command_by_snapshot = start.elapsed();
    assert_eq!((reached, loaded.balance, loaded.events), (100_002, 99_998, 100_002));
    assert_eq!(Some((reached, loaded)), state(&plain, "a", Until::Version(100_002)).await);
    println!(
        "100,000 events: state in {by_pages:?}, with a snapshot in {by_snapshot:?}; \
         first command in {first_command:?}, with a snapshot in {command_by_snapshot:?}"
    );
    assert!(by_snapshot * 10 < by_pages, "{by_snapshot:?} of {by_pages:?}");
    assert!(command_by_snapshot * 10 < first_command, "{command_by_snapshot:?}");
}

#[tokio::test]
async fn a_snapshot_never_delays_an_answer() {
    let database = database("busy").await;
    let store = open(options(&database)).await;
    // Nobody can write a snapshot while the test holds the table.
    let mut lock = connection(&database).await;
    sqlx::raw_sql("begin; lock table snapshots in share mode").execute(&mut lock).await.unwrap();
    for n in 0..40 {
        let many = command(&account(n), Deposit { amount: 1, parts: EVERY as usize });
        let answered = tokio::time::timeout(LONG, store.execute(many)).await;
        assert_eq!(version(&answered.unwrap()), EVERY);
    }
    assert!(kept(&mut lock).await.is_empty());
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    // Those that were dropped are offered again with the next commit of their streams.
    eventually(LONG, "each has its snapshot", async || {
        let there = kept(&mut lock).await;
        let left = (0..40).map(account).filter(|name| there.iter().all(|(kept, _)| kept != name));
        let left: Vec<_> = left.collect();
        for name in &left {
            version(&store.execute(deposit(name, 1)).await);
        }
        left.is_empty()
    })
    .await;
}
