//! Idempotency keys beyond one process and one day: other callers, other processes, the end of a
//! key's life.

use crate::server::{App, Setup, tab};
use foldstream_testkit::eventually;
use serde_json::json;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_same_key_of_another_caller_is_another_key() {
    let app = App::start().await;
    let body = json!({"guest": "ann", "limit": 100});
    let by = async |caller, key| {
        let headers = [("test-caller", caller), ("idempotency-key", key)];
        app.post_with("/v1/guest-tabs", &body, &headers).await
    };
    let (ann, bob) = (by("ann", "k").await, by("bob", "k").await);
    assert_eq!((ann.status, bob.status), (201, 201), "{ann:?} {bob:?}");
    assert_ne!(ann.json["tab_id"], bob.json["tab_id"]);
    assert_eq!(bob.header("idempotency-replayed"), None);
    let again = by("ann", "k").await;
    assert_eq!(again.body, ann.body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let path = format!("/v1/guest-tabs/{}/history", ann.json["tab_id"].as_str().expect("an id"));
    assert_eq!(app.get(&path).await.json["data"][0]["actor"], "ann");
}

#[tokio::test]
async fn an_answer_is_stored_for_all_processes() {
    let one = App::start().await;
    let two = one.another(Setup::default()).await;
    let key = [("idempotency-key", "k")];
    let first = one.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    assert_eq!(first.status, 201);
    let again = two.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = two.post_with("/v1/guest-tabs", &tab("2"), &key).await;
    other.is_problem(422, "idempotency-key-reused");
}

#[tokio::test]
async fn a_key_that_runs_in_another_process_is_waited_for() {
    let one = App::start().await;
    let two = one.another(Setup::default()).await;
    // Both are connected from here on.
    for app in [&one, &two] {
        app.post("/v1/guest-tabs/9/commands/order-round", &json!({"items": []})).await;
    }
    let (stopped, mut table) = (one.stop_appends().await, one.connect().await);
    let (key, body) = ([("idempotency-key", "k")], tab("1"));
    let first = one.post_with("/v1/guest-tabs", &body, &key);
    let second = async {
        stopped.until_one_waits().await;
        let began = Instant::now();
        let asked = two.post_with("/v1/guest-tabs", &body, &key);
        let released = async {
            // It waits in the database for the first one: nobody there can say yet.
            eventually(PATIENCE, "both to wait", async || {
                let waiting = "select count(*) from pg_locks l
                               join pg_database d on d.datname = current_database()
                               where not l.granted and (l.database = d.oid or l.database is null)";
                let waiting: i64 =
                    sqlx::query_scalar(waiting).fetch_one(&mut table).await.unwrap_or(0);
                if waiting >= 2 { Ok(()) } else { Err(format!("{waiting} wait")) }
            })
            .await;
            stopped.release().await;
        };
        let (answer, ()) = tokio::join!(asked, released);
        (answer, began.elapsed())
    };
    let (first, (again, took)) = tokio::join!(first, second);
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!((again.status, &again.body), (201, &first.body), "{again:?}");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert!(took < Duration::from_secs(3), "{took:?}");
    let history = one.get("/v1/guest-tabs/1/history").await;
    assert_eq!(history.json["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_key_lives_as_long_as_it_is_told_to() {
    let store = |options: &mut foldstream_postgres::StoreOptions| {
        options.timings.idempotency = Duration::from_millis(700);
        options.timings.prune = Duration::from_secs(3600);
    };
    let app = App::start_as(Setup { store, ..Setup::default() }).await;
    let key = [("idempotency-key", "k")];
    assert_eq!(app.post_with("/v1/guest-tabs", &tab("1"), &key).await.status, 201);
    // Afterwards the key is as new, also while its record is still there: another request takes it.
    let other = eventually(PATIENCE, "the end of the key", async || {
        let answer = app.post_with("/v1/guest-tabs", &tab("2"), &key).await;
        match answer.status {
            201 => Ok(answer),
            _ => Err(answer.is_problem(422, "idempotency-key-reused").body.clone()),
        }
    })
    .await;
    assert_eq!(other.header("idempotency-replayed"), None);
    let again = app.post_with("/v1/guest-tabs", &tab("2"), &key).await;
    assert_eq!(again.body, other.body);
}

#[tokio::test]
async fn what_ran_out_is_removed_in_slices_and_the_rest_is_kept() {
    let store = |options: &mut foldstream_postgres::StoreOptions| {
        options.timings.prune = Duration::from_millis(300);
    };
    let app = App::start_as(Setup { store, ..Setup::default() }).await;
    let key = [("idempotency-key", "live")];
    let first = app.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    let mut table = app.connect().await;
    // Two and a half slices of one thousand, as old as a night.
    let old = "insert into idempotency
                 select scope, 'old-' || n, request_hash, gen_random_uuid(), topic, stream_id,
                        version, verdict, clock_timestamp() - interval '8 h'
                 from idempotency, generate_series(1, 2500) n where key = 'live'";
    sqlx::raw_sql(old).execute(&mut table).await.expect("rows as the store writes them");
    eventually(PATIENCE, "the end of what ran out", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from idempotency")
            .fetch_one(&mut table)
            .await
            .expect("the table is there");
        if left == 1 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
    let again = app.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}
