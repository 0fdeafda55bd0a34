//! Appends against a real Postgres: order, versions, verdicts.

use crate::carts::{
    AddItems, Cart, CloseCart, Panic, add, check_table, command, connection, expecting, options,
    store, version,
};
use foldstream_core::{StreamRef, Timestamp, partition_of};
use foldstream_postgres::{
    EventStore, Execute, ExecuteError, Executed, Expected, Metadata, StoreError, Until, Verdict,
};
use foldstream_testkit::eventually;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_gapless_in_commit_order_with_many_writers_of_two_stores() {
    let database = crate::carts::database("positions").await;
    let stores = [store(&database).await, store(&database).await];
    // A reader that never goes back must see every event.
    let outbox = stores[0].outbox();
    let reader = tokio::spawn(async move {
        use foldstream_core::Outbox as _;
        let partitions: Vec<_> =
            outbox.claim().await.unwrap().held.into_iter().map(|claim| claim.partition).collect();
        let (mut after, mut seen) = (vec![0; partitions.len()], 0);
        while seen < 1_200 {
            for (at, after) in partitions.iter().zip(&mut after) {
                let events = outbox.read(at, *after, 7, 10_000).await.unwrap();
                *after += events.len() as u64;
                seen += events.len();
            }
        }
        seen
    });
    let mut tasks = JoinSet::new();
    for writer in 0..60 {
        let store = stores[writer % 2].clone();
        tasks.spawn(async move {
            for n in 0..20 {
                // Some streams are shared by both stores.
                let cart = if n % 2 == 0 { "shared".into() } else { format!("cart-{writer}") };
                loop {
                    match store.execute(add(&cart, "a")).await {
                        Ok(executed) => {
                            assert!(!executed.replayed);
                            break;
                        }
                        Err(ExecuteError::Contended) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(check_table(&mut connection(&database).await).await, 1_200);
    assert_eq!(reader.await.unwrap(), 1_200);
}

#[tokio::test]
async fn an_expected_version_is_checked() {
    let database = crate::carts::database("expected").await;
    let store = store(&database).await;
    let none = |n| expecting(add("one", "a"), n);
    assert_eq!(version(&store.execute(none(Expected::NoStream)).await), 1);
    let again = store.execute(none(Expected::NoStream)).await;
    assert_eq!(again, Err(ExecuteError::Exists { current: 1 }));
    assert_eq!(version(&store.execute(none(Expected::Exact(1))).await), 2);
    let stale = store.execute(none(Expected::Exact(1))).await;
    assert_eq!(stale, Err(ExecuteError::VersionMismatch { current: 2 }));
    assert_eq!(version(&store.execute(none(Expected::Any)).await), 3);
    let empty = store.execute(expecting(add("two", "a"), Expected::Exact(0))).await;
    assert_eq!(version(&empty), 1);
}

#[tokio::test]
async fn one_of_many_wins_a_version() {
    let database = crate::carts::database("winner").await;
    let stores = [store(&database).await, store(&database).await];
    version(&stores[0].execute(add("cart", "a")).await);
    let mut tasks = JoinSet::new();
    for n in 0..40 {
        let store = stores[n % 2].clone();
        tasks.spawn(
            async move { store.execute(expecting(add("cart", "b"), Expected::Exact(1))).await },
        );
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let lost = Err(ExecuteError::VersionMismatch { current: 2 });
    assert!(answers.iter().filter(|a| a.is_err()).all(|answer| *answer == lost));
}

#[tokio::test]
async fn what_queues_up_during_a_commit_is_one_batch() {
    let database = crate::carts::database("batches").await;
    let store = {
        let mut options = options(&database);
        options.writers = 1;
        crate::carts::open(options).await
    };
    // The commit under way waits for a lock that the test holds.
    let mut lock = connection(&database).await;
    sqlx::raw_sql("begin; select 1 from heads for update").execute(&mut lock).await.unwrap();
    let mut tasks = JoinSet::new();
    for n in 0..300 {
        let store = store.clone();
        tasks.spawn(async move { store.execute(add(&format!("cart-{}", n % 10), "a")).await });
    }
    let mut probe = connection(&database).await;
    eventually(Duration::from_secs(10), "the first batch waits for the lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut probe)
        .await
        .unwrap();
        waiting > 0
    })
    .await;
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    for answer in tasks.join_all().await {
        version(&answer);
    }
    let commits: i64 = sqlx::query_scalar("select count(distinct xmin::text) from events")
        .fetch_one(&mut probe)
        .await
        .unwrap();
    assert!(commits <= 3, "{commits} commits for 300 commands");
    assert_eq!(check_table(&mut probe).await, 300);
}

#[tokio::test]
async fn a_stream_that_another_store_changed_is_decided_again() {
    let database = crate::carts::database("conflict").await;
    let (one, two) = (store(&database).await, store(&database).await);
    assert_eq!(version(&one.execute(add("cart", "a")).await), 1);
    assert_eq!(version(&two.execute(add("cart", "b")).await), 2);
    assert_eq!(version(&one.execute(add("cart", "c")).await), 3);
    let closed = two.execute(command("cart", CloseCart {})).await;
    assert_eq!(version(&closed), 4);
    // Its cached state says open; the rejection rests on the state as it is.
    let refused = one.execute(add("cart", "d")).await.unwrap();
    let Verdict::Refused(refused) = refused.verdict else { panic!("{refused:?}") };
    assert_eq!((refused.status, refused.code.as_ref()), (409, "cart-closed"));
    assert_eq!(refused.detail, "the cart is closed, with 3 items");
    let (_, state) = one.state(&stream(&one, "cart"), Until::Latest).await.unwrap().unwrap();
    assert_eq!(state.downcast_ref::<Cart>().unwrap().items, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_rejection_is_not_answered_from_a_stale_state() {
    let database = crate::carts::database("stale").await;
    let (one, two) = (store(&database).await, store(&database).await);
    version(&one.execute(command("cart", CloseCart {})).await);
    version(&two.execute(command("cart", CloseCart {})).await);
    // Another process makes the stream as it never was for `one`: closed, then gone on.
    let mut table = connection(&database).await;
    let partition = partition_of("cart", 8);
    sqlx::query("delete from events").execute(&mut table).await.unwrap();
    sqlx::query("update heads set position = 0 where partition = $1")
        .bind(partition)
        .execute(&mut table)
        .await
        .unwrap();
    assert_eq!(version(&one.execute(add("cart", "a")).await), 1);
}

#[tokio::test]
async fn rejections_and_no_ops_leave_nothing() {
    let database = crate::carts::database("nothing").await;
    let store = store(&database).await;
    let closed = store.execute(command("cart", CloseCart {})).await.unwrap();
    let again = store.execute(command("cart", CloseCart {})).await.unwrap();
    let Verdict::Accepted { version: 1, events } = &again.verdict else { panic!("{again:?}") };
    assert!(events.is_empty());
    assert_eq!(again.token, closed.token);
    let refused = store.execute(add("cart", "a")).await.unwrap();
    assert!(matches!(refused.verdict, Verdict::Refused(_)), "{refused:?}");
    assert_eq!(refused.token, closed.token);
    let mut table = connection(&database).await;
    assert_eq!(check_table(&mut table).await, 1);
    let stored: i64 =
        sqlx::query_scalar("select count(*) from idempotency").fetch_one(&mut table).await.unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn tokens_name_the_positions_reached() {
    let database = crate::carts::database("tokens").await;
    let store = store(&database).await;
    let mut reached = BTreeSet::new();
    for n in 0..30 {
        let executed = store.execute(add(&format!("cart-{n}"), "a")).await.unwrap();
        assert_eq!(executed.token.positions.len(), 1);
        assert_eq!(executed.token.stores["test.carts"], store.store_id());
        reached.extend(executed.token.positions);
    }
    let mut table = connection(&database).await;
    let stored: Vec<(i32, i64)> = sqlx::query_as("select partition, position from events")
        .fetch_all(&mut table)
        .await
        .unwrap();
    let reached: BTreeSet<_> =
        reached.into_iter().map(|(at, position)| (at.partition, position as i64)).collect();
    assert_eq!(reached, stored.into_iter().collect());
}

#[tokio::test]
async fn large_commands_run_and_too_large_ones_are_refused() {
    let database = crate::carts::database("large").await;
    let store = store(&database).await;
    let many = command("many", AddItems { sku: "x".into(), count: 5_000 });
    let (many, one) = tokio::join!(store.execute(many), store.execute(add("many", "y")));
    assert_eq!((version(&many), version(&one)), (5_000, 5_001));
    let long = store.execute(add("long", &"x".repeat(2_000_000))).await;
    assert_eq!(long, Err(ExecuteError::TooLarge));
    // Reads it all again, page by page.
    let fresh = crate::carts::store(&database).await;
    assert_eq!(version(&fresh.execute(add("many", "z")).await), 5_002);
    assert_eq!(check_table(&mut connection(&database).await).await, 5_002);
}

#[tokio::test]
async fn a_panic_or_a_bad_text_hurts_only_its_own_command() {
    let database = crate::carts::database("panic").await;
    let store = store(&database).await;
    let mut bad = add("two", "a");
    bad.metadata = Metadata { actor: Some("a\0b".into()), ..Metadata::default() };
    let (panics, good, bad, other) = tokio::join!(
        store.execute(command("cart", Panic {})),
        store.execute(add("cart", "a")),
        store.execute(bad),
        store.execute(add("two", "a")),
    );
    assert!(matches!(panics, Err(ExecuteError::Broken(_))), "{panics:?}");
    assert!(matches!(bad, Err(ExecuteError::Broken(_))), "{bad:?}");
    assert_eq!((version(&good), version(&other)), (1, 1));
}

#[tokio::test]
async fn history_and_state_at_any_place() {
    let database = crate::carts::database("history").await;
    let store = store(&database).await;
    let mut first = add("cart", "a");
    first.metadata = Metadata {
        actor: Some("ann".into()),
        correlation_id: Some("c-1".into()),
        causation_id: Some("r-1".into()),
        traceparent: None,
    };
    let (metadata, command_id) = (first.metadata.clone(), first.at.command_id);
    version(&store.execute(first).await);
    let more = command("cart", AddItems { sku: "b".into(), count: 3 });
    version(&store.execute(more).await);
    let stream = stream(&store, "cart");
    let history = store.history(&stream, 1, 2).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.record.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(history[0].event_type, "test.carts.ItemAdded");
    assert_eq!((&history[0].metadata, history[0].command_id), (&metadata, command_id));
    let rest = store.history(&stream, 3, 100).await.unwrap();
    assert_eq!(rest.len(), 2);
    let items = async |until| {
        let found = store.state(&stream, until).await.unwrap();
        found
            .map(|(version, state)| (version, state.downcast_ref::<Cart>().unwrap().items.concat()))
    };
    assert_eq!(items(Until::Latest).await, Some((4, "abbb".into())));
    assert_eq!(items(Until::Version(2)).await, Some((2, "ab".into())));
    assert_eq!(items(Until::Version(9)).await, Some((4, "abbb".into())));
    assert_eq!(items(Until::Version(0)).await, None);
    let first_at = history[0].record.recorded_at;
    assert_eq!(items(Until::Instant(first_at)).await, Some((1, "a".into())));
    let before = Timestamp::from_micros(first_at.as_micros() - 1).unwrap();
    assert_eq!(items(Until::Instant(before)).await, None);
    let unknown = StreamRef::new("test.others", "cart");
    assert!(matches!(store.history(&unknown, 1, 1).await, Err(StoreError::UnknownTopic(_))));
}

#[tokio::test]
async fn a_store_is_opened_as_it_was_made() {
    let database = crate::carts::database("opened").await;
    let first = store(&database).await;
    let open = async |options| {
        let aggregates = vec![foldstream_core::aggregate::<Cart>()];
        EventStore::open(options, aggregates, &prometheus::Registry::new()).await
    };
    let again = open(options(&database)).await.unwrap();
    assert_eq!(again.store_id(), first.store_id());
    // The ids of the schemas are known without the registry.
    assert!(again.missing_schemas().is_empty());
    let mut other = options(&database);
    other.partitions = 9;
    let refused = open(other).await.err();
    assert!(matches!(refused, Some(StoreError::Partitions { stored: 8, given: 9 })));
    let mut other = options(&database);
    other.service = "orders".into();
    assert!(matches!(open(other).await.err(), Some(StoreError::OtherService { .. })));
}

#[tokio::test]
async fn an_event_without_a_schema_id_is_not_stored() {
    let database = crate::carts::database("schemas").await;
    let aggregates = vec![foldstream_core::aggregate::<Cart>()];
    let registry = prometheus::Registry::new();
    let store = EventStore::open(options(&database), aggregates, &registry).await.unwrap();
    assert_eq!(store.missing_schemas().len(), 2);
    let refused = store.execute(add("cart", "a")).await;
    assert_eq!(refused, Err(ExecuteError::NoSchema("test.carts.ItemAdded".into())));
    let text = store.missing_schemas()[0].schema.json.to_string();
    let id = ("test.carts.ItemAdded".to_owned(), 7, text.clone());
    store.learn_schemas(&[id]).await.unwrap();
    assert_eq!(version(&store.execute(add("cart", "a")).await), 1);
    let other = text.replace("before", "after");
    let foreign = ("test.carts.ItemAdded".to_owned(), 7, other);
    let refused = store.learn_schemas(&[foreign]).await;
    assert!(matches!(refused, Err(StoreError::SchemaId { id: 7 })), "{refused:?}");
}

#[tokio::test]
async fn a_missing_database_is_created_with_locale_c() {
    let database = foldstream_testkit::database("made").await;
    let name = foldstream_testkit::unique("made").replace('-', "_");
    let (server, _) = database.url.rsplit_once('/').unwrap();
    let url = format!("{server}/{name}");
    let (one, two) =
        tokio::join!(foldstream_postgres::migrate(&url), foldstream_postgres::migrate(&url));
    one.unwrap();
    two.unwrap();
    let mut admin = connection(&database).await;
    let collation: String =
        sqlx::query_scalar("select datcollate from pg_database where datname = $1")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .unwrap();
    assert_eq!(collation, "C");
    let drop = format!("drop database \"{name}\" with (force)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
}

fn stream(store: &EventStore, id: &str) -> StreamRef {
    store.stream("carts", id).unwrap()
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let database = crate::carts::database("hangup").await;
    let store = store(&database).await;
    let mut lock = connection(&database).await;
    sqlx::raw_sql("begin; select 1 from heads for update").execute(&mut lock).await.unwrap();
    let hasty: Result<Result<Executed, _>, _> =
        tokio::time::timeout(Duration::from_millis(50), store.execute(add("cart", "a"))).await;
    assert!(hasty.is_err());
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    let mut table = connection(&database).await;
    eventually(Duration::from_secs(5), "the event is stored", async || {
        check_table(&mut table).await == 1
    })
    .await;
}

#[tokio::test]
async fn a_batch_with_bad_data_is_run_again_by_halves() {
    let database = crate::carts::database("halves").await;
    let mut options = options(&database);
    options.writers = 1;
    let store = crate::carts::open(options).await;
    let mut lock = connection(&database).await;
    sqlx::raw_sql("begin; select 1 from heads for update").execute(&mut lock).await.unwrap();
    let mut tasks = JoinSet::new();
    for n in 0..40 {
        let mut execute = add(&format!("cart-{}", n % 7), "a");
        let is_bad = n % 13 == 5;
        if is_bad {
            execute.metadata.actor = Some("a\0b".into());
        }
        let store = store.clone();
        tasks.spawn(async move { (is_bad, store.execute(execute).await) });
    }
    // All of them are sent before the first commit ends.
    tokio::task::yield_now().await;
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    for (is_bad, answer) in tasks.join_all().await {
        assert_eq!(matches!(answer, Err(ExecuteError::Broken(_))), is_bad, "{answer:?}");
        assert_eq!(answer.is_ok(), !is_bad);
    }
    assert_eq!(check_table(&mut lock).await, 37);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creating_command_meets_what_another_store_made() {
    let database = crate::carts::database("creates").await;
    let (one, other) = (store(&database).await, store(&database).await);
    let creating = |execute: Execute| Execute { creates: true, ..execute };
    assert_eq!(version(&one.execute(creating(add("c1", "a"))).await), 1);
    // The other store has never seen the stream, takes it for empty, and is told.
    let again = other.execute(creating(expecting(add("c1", "b"), Expected::NoStream))).await;
    assert!(matches!(again, Err(ExecuteError::Exists { current: 1 })), "{again:?}");
    let stale = other.execute(creating(expecting(add("c1", "b"), Expected::Exact(7)))).await;
    assert!(matches!(stale, Err(ExecuteError::VersionMismatch { current: 1 })), "{stale:?}");
    let third = store(&database).await;
    let exact = third.execute(creating(expecting(add("c1", "b"), Expected::Exact(1)))).await;
    assert_eq!(version(&exact), 2);
    let fourth = store(&database).await;
    assert_eq!(version(&fourth.execute(creating(add("c1", "c"))).await), 3);
    // A refusal that only an empty stream would give is not answered for one that is not.
    let fifth = store(&database).await;
    let closed = fifth.execute(creating(command("c1", CloseCart {}))).await.unwrap();
    assert!(matches!(closed.verdict, Verdict::Accepted { .. }), "{closed:?}");
    check_table(&mut connection(&database).await).await;
}
