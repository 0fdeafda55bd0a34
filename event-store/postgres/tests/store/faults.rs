//! Lost connections, lost answers, a database that is away: one effect, and recovery by itself.

use crate::carts::{add, check_table, connection, version, with_key};
use foldstream_postgres::{EventStore, ExecuteError, Executed, StoreOptions};
use foldstream_testkit::proxy::{Ending, Mode, Proxy, Way};
use foldstream_testkit::{TestDatabase, eventually};
use sqlx::PgConnection;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(15);

pub fn through(proxy: &Proxy, database: &TestDatabase) -> StoreOptions {
    let url = proxy.instead_of(&database.url);
    let mut options = StoreOptions::new(url, "test", "carts");
    options.timings.connect = Duration::from_secs(1);
    options.timings.call = Duration::from_secs(1);
    options
}

pub async fn wait_for_a_lock(table: &mut PgConnection) {
    eventually(LONG, "an append waits for the lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *table)
        .await
        .unwrap();
        waiting > 0
    })
    .await;
}

/// Ends the backends of the store, as a crash of theirs would.
async fn terminate(table: &mut PgConnection) {
    sqlx::raw_sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'test-carts'",
    )
    .execute(table)
    .await
    .unwrap();
}

pub async fn lock_heads(database: &TestDatabase) -> PgConnection {
    let mut lock = connection(database).await;
    sqlx::raw_sql("begin; select 1 from heads for update").execute(&mut lock).await.unwrap();
    lock
}

pub fn start(
    store: &EventStore,
    execute: foldstream_postgres::Execute,
) -> tokio::task::JoinHandle<Result<Executed, ExecuteError>> {
    let store = store.clone();
    tokio::spawn(async move { store.execute(execute).await })
}

#[tokio::test]
async fn an_append_whose_backend_died_is_done_again_once() {
    let database = crate::carts::database("died").await;
    let store = crate::carts::store(&database).await;
    version(&store.execute(add("cart", "a")).await);
    let mut lock = lock_heads(&database).await;
    let running = start(&store, with_key(add("cart", "b"), "k1", 1));
    let mut table = connection(&database).await;
    wait_for_a_lock(&mut table).await;
    terminate(&mut table).await;
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    let executed = running.await.unwrap().unwrap();
    assert!(!executed.replayed);
    assert_eq!(version(&Ok(executed)), 2);
    assert_eq!(check_table(&mut table).await, 2);
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_recognised() {
    let database = crate::carts::database("lost").await;
    let proxy = Proxy::before(&database.url).await;
    let store = crate::carts::open(through(&proxy, &database)).await;
    let mut table = connection(&database).await;
    for (n, keyed) in [(2, false), (4, true)] {
        version(&store.execute(add("cart", "a")).await);
        proxy.set_way(Way::ToClient, Mode::Drop);
        let execute = add("cart", "b");
        let execute = if keyed { with_key(execute, "k1", 1) } else { execute };
        let running = start(&store, execute);
        eventually(LONG, "the commit arrives", async || check_table(&mut table).await == n).await;
        proxy.heal();
        proxy.cut(Ending::Close);
        let executed = running.await.unwrap().unwrap();
        assert!(!executed.replayed && !executed.token.is_empty());
        assert_eq!(version(&Ok(executed)), n as u64);
    }
    assert_eq!(version(&store.execute(add("cart", "c")).await), 5);
    assert_eq!(check_table(&mut table).await, 5);
}

#[tokio::test]
async fn a_silent_link_is_given_up_and_settled() {
    let database = crate::carts::database("silent").await;
    let proxy = Proxy::before(&database.url).await;
    let store = crate::carts::open(through(&proxy, &database)).await;
    version(&store.execute(add("cart", "a")).await);
    proxy.set_way(Way::ToClient, Mode::Drop);
    let running: Vec<_> = (0..5).map(|_| start(&store, add("cart", "b"))).collect();
    let mut table = connection(&database).await;
    eventually(LONG, "a commit arrives", async || check_table(&mut table).await > 1).await;
    proxy.heal();
    for running in running {
        let executed = running.await.unwrap().unwrap();
        assert!(!executed.replayed);
    }
    assert_eq!(check_table(&mut table).await, 6);
}

#[tokio::test]
async fn at_the_deadline_the_outcome_is_unknown_and_can_be_asked_for() {
    let database = crate::carts::database("unknown").await;
    let store = crate::carts::store(&database).await;
    let mut lock = lock_heads(&database).await;
    let mut execute = add("cart", "a");
    execute.deadline = Duration::from_millis(500);
    assert_eq!(store.execute(execute.clone()).await, Err(ExecuteError::OutcomeUnknown));
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    execute.deadline = LONG;
    assert_eq!(version(&store.execute(execute).await), 1);
    assert_eq!(check_table(&mut lock).await, 1);
}

#[tokio::test]
async fn a_lock_held_too_long_is_waited_for_again() {
    let database = crate::carts::database("locked").await;
    let mut options = crate::carts::options(&database);
    options.timings.call = Duration::from_millis(400);
    let store = crate::carts::open(options).await;
    let mut lock = lock_heads(&database).await;
    let running: Vec<_> =
        (0..8).map(|n| start(&store, add(&format!("cart-{}", n % 4), "a"))).collect();
    // Long enough for several tries; nothing can be observed but that no answer comes.
    assert!(
        tokio::time::timeout(Duration::from_secs(1), async {
            while !running.iter().any(tokio::task::JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .is_err()
    );
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    for running in running {
        running.await.unwrap().unwrap();
    }
    assert_eq!(check_table(&mut lock).await, 8);
}

#[tokio::test]
async fn without_the_database_nothing_is_done_and_it_comes_back_by_itself() {
    let database = crate::carts::database("away").await;
    let proxy = Proxy::before(&database.url).await;
    let store = crate::carts::open(through(&proxy, &database)).await;
    version(&store.execute(add("cart", "a")).await);
    proxy.down();
    assert!(store.check().await.is_err());
    eventually(LONG, "the writer knows", async || {
        let mut execute = add("other", "b");
        execute.deadline = Duration::from_millis(300);
        matches!(store.execute(execute).await, Err(ExecuteError::Unavailable(_)))
    })
    .await;
    let waiting = start(&store, add("cart", "c"));
    proxy.heal();
    waiting.await.unwrap().unwrap();
    eventually(LONG, "the store is ready", async || store.check().await).await;
    let mut table = connection(&database).await;
    let of_cart: i64 = sqlx::query_scalar("select count(*) from events where stream_id = 'cart'")
        .fetch_one(&mut table)
        .await
        .unwrap();
    assert_eq!(of_cart, 2);
    check_table(&mut table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_die_again_and_again_lose_and_double_nothing() {
    let database = crate::carts::database("storm").await;
    let store = crate::carts::store(&database).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..25 {
                let cart = format!("cart-{}", writer % 5);
                let execute = add(&cart, "a");
                let execute = if n % 2 == 0 {
                    with_key(execute, &format!("{writer}-{n}"), 1)
                } else {
                    execute
                };
                assert!(!store.execute(execute).await.unwrap().replayed);
            }
        });
    }
    let mut table = connection(&database).await;
    while !tasks.is_empty() {
        terminate(&mut table).await;
        let pause = tokio::time::sleep(Duration::from_millis(100));
        tokio::pin!(pause);
        tokio::select! {
            done = tasks.join_next() => done.unwrap().unwrap(),
            () = &mut pause => {}
        }
    }
    assert_eq!(check_table(&mut table).await, 16 * 25);
}

#[tokio::test]
async fn a_closing_store_finishes_what_was_sent() {
    let database = crate::carts::database("closing").await;
    let store = crate::carts::store(&database).await;
    let mut lock = lock_heads(&database).await;
    let running = start(&store, add("cart", "a"));
    let mut table = connection(&database).await;
    wait_for_a_lock(&mut table).await;
    let closing = tokio::spawn({
        let store = store.clone();
        async move { store.close().await }
    });
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    assert_eq!(version(&running.await.unwrap()), 1);
    closing.await.unwrap();
    let refused = store.execute(add("cart", "b")).await;
    assert!(matches!(refused, Err(ExecuteError::Unavailable(_))), "{refused:?}");
}
