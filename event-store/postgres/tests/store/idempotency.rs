//! The same key, the same effect, the same answer.

use crate::carts::{
    CloseCart, add, check_table, command, connection, expecting, store, version, with_key,
};
use foldstream_core::Uuid;
use foldstream_postgres::{ExecuteError, Executed, Expected, Verdict};
use foldstream_testkit::eventually;
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_key_is_answered_again_and_has_one_effect() {
    let database = crate::carts::database("replay").await;
    let (one, two) = (store(&database).await, store(&database).await);
    let first = one.execute(with_key(add("cart", "a"), "k1", 1)).await.unwrap();
    assert!(!first.replayed);
    version(&one.execute(add("cart", "b")).await);
    for store in [&one, &two] {
        let again = store.execute(with_key(add("cart", "a"), "k1", 1)).await.unwrap();
        assert_eq!(again, Executed { replayed: true, ..first.clone() });
        let other = store.execute(with_key(add("cart", "a"), "k1", 2)).await;
        assert_eq!(other, Err(ExecuteError::KeyReused));
    }
    assert_eq!(check_table(&mut connection(&database).await).await, 2);
}

#[tokio::test]
async fn the_key_comes_before_preconditions_and_rules() {
    let database = crate::carts::database("order").await;
    let store = store(&database).await;
    let create = || with_key(expecting(add("cart", "a"), Expected::NoStream), "k1", 1);
    let first = store.execute(create()).await.unwrap();
    let again = store.execute(create()).await.unwrap();
    assert_eq!(again, Executed { replayed: true, ..first });
    // A rejection is a verdict and is kept, also when it would be accepted now or refused anew.
    version(&store.execute(command("cart", CloseCart {})).await);
    let refused = store.execute(with_key(add("cart", "b"), "k2", 1)).await.unwrap();
    assert!(matches!(refused.verdict, Verdict::Refused(_)), "{refused:?}");
    assert_eq!(refused.token.positions.len(), 1);
    let again = store.execute(with_key(add("cart", "b"), "k2", 1)).await.unwrap();
    assert_eq!(again, Executed { replayed: true, ..refused });
    // A precondition that is not met is none.
    let unmet = || expecting(add("other", "b"), Expected::Exact(1));
    let failed = store.execute(with_key(unmet(), "k3", 1)).await;
    assert_eq!(failed, Err(ExecuteError::VersionMismatch { current: 0 }));
    version(&store.execute(add("other", "b")).await);
    let met = store.execute(with_key(unmet(), "k3", 1)).await;
    assert_eq!(version(&met), 2);
}

#[tokio::test]
async fn a_key_in_progress_is_said_to_be() {
    let database = crate::carts::database("progress").await;
    let store = store(&database).await;
    let mut lock = connection(&database).await;
    sqlx::raw_sql("begin; select 1 from heads for update").execute(&mut lock).await.unwrap();
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.execute(with_key(add("cart", "a"), "k1", 1)).await }
    });
    let mut table = connection(&database).await;
    eventually(Duration::from_secs(10), "the first one waits for the lock", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut table)
        .await
        .unwrap();
        waiting > 0
    })
    .await;
    let again = store.execute(with_key(add("cart", "a"), "k1", 1)).await;
    assert_eq!(again, Err(ExecuteError::KeyInProgress));
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    assert_eq!(version(&running.await.unwrap()), 1);
    let again = store.execute(with_key(add("cart", "a"), "k1", 1)).await.unwrap();
    assert!(again.replayed);
}

#[tokio::test]
async fn many_tries_of_one_key_over_two_stores_have_one_effect() {
    let database = crate::carts::database("tries").await;
    let stores = [store(&database).await, store(&database).await];
    let mut tasks = JoinSet::new();
    for n in 0..60 {
        let store = stores[n % 2].clone();
        tasks.spawn(async move {
            let key = format!("k{}", n % 3);
            loop {
                match store.execute(with_key(add("cart", "a"), &key, 1)).await {
                    Err(ExecuteError::KeyInProgress | ExecuteError::Contended) => {
                        tokio::task::yield_now().await;
                    }
                    other => return (key, other.unwrap()),
                }
            }
        });
    }
    let answers = tasks.join_all().await;
    for key in ["k0", "k1", "k2"] {
        let of_key: Vec<_> = answers.iter().filter(|(k, _)| k == key).map(|(_, a)| a).collect();
        assert_eq!(of_key.iter().filter(|answer| !answer.replayed).count(), 1, "{of_key:?}");
        assert!(of_key.iter().all(|answer| answer.verdict == of_key[0].verdict));
        assert!(of_key.iter().all(|answer| answer.token == of_key[0].token));
    }
    assert_eq!(check_table(&mut connection(&database).await).await, 3);
}

#[tokio::test]
async fn a_replay_in_a_batch_does_not_hurt_its_neighbours() {
    let database = crate::carts::database("neighbours").await;
    let store = store(&database).await;
    let first = store.execute(with_key(add("cart", "a"), "k1", 1)).await.unwrap();
    let (before, again, after) = tokio::join!(
        store.execute(add("cart", "b")),
        store.execute(with_key(add("cart", "a"), "k1", 1)),
        store.execute(add("cart", "c")),
    );
    assert_eq!((version(&before), version(&after)), (2, 3));
    assert_eq!(again.unwrap(), Executed { replayed: true, ..first });
}

#[tokio::test]
async fn a_command_id_is_applied_once() {
    let database = crate::carts::database("commandid").await;
    let (one, two) = (store(&database).await, store(&database).await);
    let execute = add("cart", "a");
    let first = one.execute(execute.clone()).await.unwrap();
    version(&one.execute(command("cart", CloseCart {})).await);
    for store in [&one, &two] {
        let again = store.execute(execute.clone()).await.unwrap();
        assert_eq!(again, Executed { replayed: true, ..first.clone() });
    }
    let mut elsewhere = add("other", "a");
    elsewhere.at.command_id = execute.at.command_id;
    let refused = one.execute(elsewhere).await;
    assert!(matches!(refused, Err(ExecuteError::Broken(_))), "{refused:?}");
    assert_eq!(check_table(&mut connection(&database).await).await, 2);
}

#[tokio::test]
async fn a_key_that_ran_out_is_new_again_and_is_pruned() {
    let database = crate::carts::database("expiry").await;
    let mut options = crate::carts::options(&database);
    options.timings.prune = Duration::from_millis(100);
    let store = crate::carts::open(options).await;
    let mut first = with_key(add("cart", "a"), "k1", 1);
    first.at.command_id = Uuid::new_v4();
    version(&store.execute(first).await);
    let mut table = connection(&database).await;
    let late = "update idempotency set expires_at = clock_timestamp() - interval '1 second'";
    sqlx::raw_sql(late).execute(&mut table).await.unwrap();
    let again = store.execute(with_key(add("cart", "a"), "k1", 2)).await;
    assert_eq!(version(&again), 2);
    sqlx::raw_sql(late).execute(&mut table).await.unwrap();
    eventually(Duration::from_secs(10), "the key is removed", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from idempotency")
            .fetch_one(&mut table)
            .await
            .unwrap();
        left == 0
    })
    .await;
}
