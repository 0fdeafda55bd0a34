//! One append over several streams: all of it, or nothing; and several processes side by side.

use crate::accounts::{Account, Deposit, Withdraw, command, deposit, open, withdraw};
use crate::carts::{CloseCart, add, check_table, connection, database, options, version};
use crate::faults::{lock_heads, through, wait_for_a_lock};
use foldstream_core::{At, Timestamp, Uuid};
use foldstream_postgres::{
    AcceptedPart, EventStore, ExecuteAll, ExecuteAllError, ExecuteError, ExecutedAll, Expected,
    Idempotency, Metadata, Part, Until, VerdictOfAll,
};
use foldstream_testkit::eventually;
use foldstream_testkit::proxy::{Ending, Mode, Proxy, Way};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(20);

fn part(account: &str, command: impl Into<crate::accounts::AccountCommand>) -> Part {
    Part {
        aggregate: "accounts",
        stream_id: account.into(),
        command: Arc::new(command.into()),
        expected: Expected::Any,
    }
}
fn give(account: &str, amount: i64) -> Part {
    part(account, Deposit { amount, parts: 1 })
}
fn take(account: &str, amount: i64) -> Part {
    part(account, Withdraw { amount })
}
fn close(cart: &str) -> Part {
    let command: crate::carts::CartCommand = CloseCart {}.into();
    let command = Arc::new(command);
    Part { aggregate: "carts", stream_id: cart.into(), command, expected: Expected::Any }
}
fn expecting(part: Part, expected: Expected) -> Part {
    Part { expected, ..part }
}
fn all(parts: Vec<Part>) -> ExecuteAll {
    ExecuteAll {
        parts,
        at: At { now: Timestamp::EPOCH, actor: "test".into(), command_id: Uuid::new_v4() },
        idempotency: None,
        metadata: Metadata::default(),
        deadline: LONG,
    }
}
fn with_key(all: ExecuteAll, key: &str, hash: u8) -> ExecuteAll {
    let (scope, key) = ("test".into(), key.into());
    let idempotency = Some(Idempotency { scope, key, request_hash: [hash; 32] });
    ExecuteAll { idempotency, ..all }
}
fn transfer(from: &str, to: &str, amount: i64) -> ExecuteAll {
    all(vec![take(from, amount), give(to, amount)])
}

type Answer = Result<ExecutedAll, ExecuteAllError>;

fn accepted(answer: &Answer) -> &[AcceptedPart] {
    match answer {
        Ok(ExecutedAll { verdict: VerdictOfAll::Accepted(parts), .. }) => parts,
        other => panic!("not accepted: {other:?}"),
    }
}
fn versions(answer: &Answer) -> Vec<u64> {
    accepted(answer).iter().map(|part| part.version).collect()
}
fn failed(part: Option<usize>, error: ExecuteError) -> Answer {
    Err(ExecuteAllError { part, error })
}

async fn balance(store: &EventStore, account: &str) -> i64 {
    let stream = store.stream("accounts", account).unwrap();
    let state = store.state(&stream, Until::Latest).await.unwrap();
    state.map_or(0, |(_, state)| state.downcast_ref::<Account>().unwrap().balance)
}

async fn deadlocks(table: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
        .fetch_one(table)
        .await
        .unwrap()
}

#[tokio::test]
async fn streams_of_several_aggregates_are_appended_in_one_transaction() {
    let database = database("several").await;
    let store = open(options(&database)).await;
    version(&store.execute(deposit("a", 10)).await);
    version(&store.execute(add("c", "x")).await);
    let done = store.execute_all(all(vec![take("a", 4), give("b", 4), close("c")])).await;
    assert_eq!(versions(&done), [2, 1, 2]);
    let names: Vec<_> = accepted(&done).iter().map(|part| part.events[0].name.as_str()).collect();
    assert_eq!(names, ["Withdrawn", "Deposited", "CartClosed"]);
    assert_eq!(accepted(&done)[2].stream, store.stream("carts", "c").unwrap());
    let token = &done.as_ref().unwrap().token;
    assert_eq!((token.stores.len(), token.streams.len()), (2, 3));
    assert_eq!((balance(&store, "a").await, balance(&store, "b").await), (6, 4));
    let mut table = connection(&database).await;
    assert_eq!(check_table(&mut table).await, 5);
    let of_it: (i64, i64, i64) = sqlx::query_as(
        "select count(*), count(distinct xmin::text), max(ordinal)::bigint from events
         where command_id = (select command_id from events where type like '%CartClosed')",
    )
    .fetch_one(&mut table)
    .await
    .unwrap();
    assert_eq!(of_it, (3, 1, 2));
    // What the writers remember of all of them is right.
    assert_eq!(version(&store.execute(withdraw("a", 6)).await), 3);
    assert_eq!(version(&store.execute(withdraw("b", 4)).await), 2);
    // One stream alone may be asked this way, too.
    assert_eq!(versions(&store.execute_all(all(vec![give("b", 1)])).await), [3]);
}

#[tokio::test]
async fn a_refused_part_is_named_and_nothing_is_written() {
    let database = database("refused").await;
    let (one, two) = (open(options(&database)).await, open(options(&database)).await);
    version(&one.execute(deposit("a", 10)).await);
    let greedy = || vec![give("b", 5), take("a", 11), give("c", 6)];
    let refused = one.execute_all(with_key(all(greedy()), "k", 1)).await.unwrap();
    let VerdictOfAll::Refused { part: 1, refused: why } = &refused.verdict else {
        panic!("{refused:?}");
    };
    assert_eq!(why.detail, "only 10 cents are left");
    // It rests on the one stream that has events.
    assert_eq!(refused.token.positions.len(), 1);
    let mut table = connection(&database).await;
    assert_eq!(check_table(&mut table).await, 1);
    // The key keeps it, even when it would be accepted now.
    version(&two.execute(deposit("a", 10)).await);
    for store in [&one, &two] {
        let again = store.execute_all(with_key(all(greedy()), "k", 1)).await.unwrap();
        assert_eq!(again, ExecutedAll { replayed: true, ..refused.clone() });
    }
    assert_eq!(versions(&one.execute_all(with_key(all(greedy()), "k2", 1)).await), [1, 3, 1]);
    assert_eq!(check_table(&mut table).await, 5);
}

#[tokio::test]
async fn a_part_whose_version_is_another_is_named_and_nothing_is_written() {
    let database = database("stalepart").await;
    let (one, two) = (open(options(&database)).await, open(options(&database)).await);
    version(&one.execute(deposit("a", 10)).await);
    version(&one.execute(deposit("b", 10)).await);
    // Behind the back of the first store, which remembers version 1.
    version(&two.execute(deposit("b", 1)).await);
    let at_1 = || expecting(give("b", 1), Expected::Exact(1));
    let late = one.execute_all(all(vec![take("a", 1), at_1()])).await;
    assert_eq!(late, failed(Some(1), ExecuteError::VersionMismatch { current: 2 }));
    let new = vec![give("new", 1), expecting(give("b", 1), Expected::NoStream)];
    let there = one.execute_all(all(new)).await;
    assert_eq!(there, failed(Some(1), ExecuteError::Exists { current: 2 }));
    let first = one.execute_all(all(vec![at_1(), take("a", 1)])).await;
    assert_eq!(first, failed(Some(0), ExecuteError::VersionMismatch { current: 2 }));
    let mut table = connection(&database).await;
    assert_eq!(check_table(&mut table).await, 3);
    // Without a version the stale state is read again and decided on.
    version(&two.execute(withdraw("b", 11)).await);
    let refused = one.execute_all(transfer("b", "a", 1)).await.unwrap().verdict;
    assert!(matches!(refused, VerdictOfAll::Refused { part: 0, .. }), "{refused:?}");
    version(&two.execute(deposit("b", 7)).await);
    assert_eq!(versions(&one.execute_all(transfer("b", "a", 7)).await), [5, 2]);
    let met = vec![at_1(), take("a", 1)].into_iter().map(|part| Part {
        expected: Expected::Exact(if part.stream_id == "b" { 5 } else { 2 }),
        ..part
    });
    assert_eq!(versions(&one.execute_all(all(met.collect())).await), [6, 3]);
}

#[tokio::test]
async fn the_same_again_has_one_effect_and_the_same_answer() {
    let database = database("sameagain").await;
    let (one, two) = (open(options(&database)).await, open(options(&database)).await);
    version(&one.execute(deposit("a", 10)).await);
    version(&one.execute(crate::carts::command("c", CloseCart {})).await);
    // Closing what is closed leads to nothing, and is part of the answer.
    let parts = || vec![close("c"), take("a", 1), give("b", 1)];
    for (n, command) in [all(parts()), with_key(all(parts()), "k", 1)].into_iter().enumerate() {
        let n = n as u64;
        let first = one.execute_all(command.clone()).await;
        assert_eq!(accepted(&first)[0].events, []);
        assert_eq!(versions(&first), [1, 2 + 2 * n, 1 + 2 * n]);
        let first = first.unwrap();
        assert!(!first.replayed && first.token.streams.len() == 3);
        version(&two.execute(deposit("b", 100)).await);
        version(&two.execute(deposit("a", 1)).await);
        for store in [&one, &two] {
            let again = store.execute_all(command.clone()).await.unwrap();
            assert_eq!(again, ExecutedAll { replayed: true, ..first.clone() });
        }
    }
    assert_eq!(check_table(&mut connection(&database).await).await, 10);
}

#[tokio::test]
async fn a_key_of_several_is_no_key_of_others() {
    let database = database("keyofseveral").await;
    let store = open(options(&database)).await;
    version(&store.execute(deposit("a", 10)).await);
    let first = store.execute_all(with_key(transfer("a", "b", 1), "k", 1)).await;
    assert_eq!(versions(&first), [2, 1]);
    let first = first.unwrap();
    let again = store.execute_all(with_key(transfer("a", "b", 1), "k", 1)).await.unwrap();
    assert_eq!(again, ExecutedAll { replayed: true, ..first });
    let other = store.execute_all(with_key(transfer("a", "b", 2), "k", 2)).await;
    assert_eq!(other, failed(None, ExecuteError::KeyReused));
    let single = store.execute(crate::carts::with_key(deposit("a", 1), "k", 3)).await;
    assert_eq!(single, Err(ExecuteError::KeyReused));
    // A key that ran out: the command id still says what was done.
    let command = with_key(all(vec![take("a", 1), close("c"), give("b", 1)]), "k3", 1);
    let first = store.execute_all(command.clone()).await.unwrap();
    let mut table = connection(&database).await;
    sqlx::raw_sql("delete from idempotency").execute(&mut table).await.unwrap();
    let again = store.execute_all(command).await.unwrap();
    assert_eq!(again, ExecutedAll { replayed: true, ..first });
    assert_eq!(check_table(&mut table).await, 6);
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_settled_to_one_effect() {
    let database = database("lostseveral").await;
    let proxy = Proxy::before(&database.url).await;
    let store = {
        let mut options = through(&proxy, &database);
        options.writers = 1;
        open(options).await
    };
    let mut table = connection(&database).await;
    version(&store.execute(deposit("a", 100)).await);
    version(&store.execute(add("c", "x")).await);
    for n in 1..=3 {
        // What has to be read is read before: from here on no answer comes.
        for name in ["a", "b"] {
            store.execute(command(name, Deposit { amount: 1, parts: 0 })).await.unwrap();
        }
        let none = crate::carts::AddItems { sku: String::new(), count: 0 };
        store.execute(crate::carts::command("c", none)).await.unwrap();
        let before = check_table(&mut table).await;
        proxy.set_way(Way::ToClient, Mode::Drop);
        let asked = all(vec![take("a", 1), close("c"), give("b", 1)]);
        let running = tokio::spawn({
            let store = store.clone();
            async move { store.execute_all(asked).await }
        });
        eventually(LONG, "the commit arrives", async || check_table(&mut table).await > before)
            .await;
        proxy.heal();
        proxy.cut(Ending::Close);
        let answer = running.await.unwrap();
        // The cart is closed by the first of them; the others find it so.
        assert_eq!(versions(&answer), [1 + n, 2, n]);
        assert_eq!(accepted(&answer)[1].events.len(), usize::from(n == 1));
        let answer = answer.unwrap();
        assert!(!answer.replayed);
        assert_eq!((answer.token.stores.len(), answer.token.streams.len()), (2, 3));
    }
    let fresh = open(options(&database)).await;
    assert_eq!((balance(&fresh, "a").await, balance(&fresh, "b").await), (97, 3));
    assert_eq!(check_table(&mut table).await, 9);
}

#[tokio::test]
async fn a_conflict_in_one_batch_spreads_as_far_as_it_must() {
    let database = database("spread").await;
    let one = {
        let mut options = options(&database);
        options.writers = 1;
        open(options).await
    };
    let two = open(options(&database)).await;
    for account in ["a", "b", "c", "d"] {
        version(&one.execute(deposit(account, 100)).await);
    }
    let mut lock = lock_heads(&database).await;
    let mut table = connection(&database).await;
    let mut running = JoinSet::new();
    let single = |store: &EventStore, command| {
        let store = store.clone();
        async move { version(&store.execute(command).await) }
    };
    let several = |store: &EventStore, command| {
        let store = store.clone();
        async move { versions(&store.execute_all(command).await).iter().sum::<u64>() }
    };
    // Keeps the writer of the first store busy, so that the others are one batch.
    running.spawn(single(&one, deposit("e", 1)));
    wait_for_a_lock(&mut table).await;
    // a–b, b–c hang together; d does not.
    running.spawn(several(&one, transfer("a", "b", 10)));
    tokio::task::yield_now().await;
    running.spawn(several(&one, transfer("b", "c", 110)));
    running.spawn(single(&one, withdraw("c", 210)));
    running.spawn(single(&one, deposit("d", 1)));
    tokio::task::yield_now().await;
    // Another process is first: its append waits for the same lock, before the batch is sent.
    let first = tokio::spawn(single(&two, deposit("a", 1)));
    eventually(LONG, "both wait", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut table)
        .await
        .unwrap();
        waiting >= 2
    })
    .await;
    sqlx::raw_sql("commit").execute(&mut lock).await.unwrap();
    first.await.unwrap();
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let mut balances = Vec::new();
    for account in ["a", "b", "c", "d", "e"] {
        balances.push(balance(&two, account).await);
    }
    assert_eq!(balances, [91, 0, 0, 101, 1]);
    assert_eq!(check_table(&mut table).await, 12);
    // What did not hang together with the stale stream was written at once, the rest after it.
    let appends: Vec<(String, i64)> = sqlx::query_as(
        "select stream_id, dense_rank() over (order by xmin::text::bigint) from events
         where stream_id in ('b', 'c', 'd') and version = 2 order by stream_id",
    )
    .fetch_all(&mut table)
    .await
    .unwrap();
    let rank = |name: &str| appends.iter().find(|(stream, _)| stream == name).unwrap().1;
    assert!(rank("d") < rank("b") && rank("b") == rank("c"), "{appends:?}");
}

#[tokio::test]
async fn a_bug_in_a_part_or_in_the_parts_is_named() {
    let database = database("badparts").await;
    let store = open(options(&database)).await;
    version(&store.execute(deposit("a", 1)).await);
    let broken = |answer: Answer, part| {
        let Err(ExecuteAllError { part: named, error: ExecuteError::Broken(_) }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(named, part);
    };
    let panics: crate::carts::CartCommand = crate::carts::Panic {}.into();
    let panics = Part { command: Arc::new(panics), ..close("c") };
    broken(store.execute_all(all(vec![give("a", 1), panics])).await, Some(1));
    let unknown = Part { aggregate: "orders", ..give("a", 1) };
    broken(store.execute_all(all(vec![give("b", 1), unknown])).await, Some(1));
    broken(store.execute_all(all(vec![give("a", 1), take("a", 1)])).await, Some(1));
    broken(store.execute_all(all(Vec::new())).await, None);
    let many = (0..101).map(|n| give(&n.to_string(), 1)).collect();
    broken(store.execute_all(all(many)).await, None);
    assert_eq!(check_table(&mut connection(&database).await).await, 1);
    let many = (0..100).map(|n| give(&n.to_string(), 1)).collect();
    assert_eq!(versions(&store.execute_all(all(many)).await), [1; 100]);
    // Too much of it together, though each part alone would do.
    let mut options = options(&database);
    options.limits.command_bytes = 1_000;
    let store = open(options).await;
    let five = |n: usize| part(&n.to_string(), Deposit { amount: 1, parts: 5 });
    let refused = store.execute_all(all((0..40).map(five).collect())).await;
    assert_eq!(refused, failed(None, ExecuteError::TooLarge));
    assert_eq!(check_table(&mut connection(&database).await).await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_of_two_processes_conserve_the_total_without_deadlocks() {
    let database = database("transfers").await;
    let stores = [open(options(&database)).await, open(options(&database)).await];
    let account = |n: usize| format!("account-{n}");
    for n in 0..10 {
        version(&stores[0].execute(deposit(&account(n), 100)).await);
    }
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let store = stores[task % 2].clone();
        tasks.spawn(async move {
            let (mut done, mut refused) = (0, 0);
            for n in 0..20 {
                let (from, by) = ((task * 7 + n * 3) % 10, 1 + (task + n) % 9);
                let command = transfer(&account(from), &account((from + by) % 10), 30);
                let command = with_key(command, &format!("{task}-{n}"), 1);
                loop {
                    match store.execute_all(command.clone()).await {
                        Ok(ExecutedAll { verdict: VerdictOfAll::Accepted(_), .. }) => done += 1,
                        Ok(ExecutedAll { verdict: VerdictOfAll::Refused { part, .. }, .. }) => {
                            assert_eq!(part, 0);
                            refused += 1;
                        }
                        Err(ExecuteAllError { error: ExecuteError::Contended, part }) => {
                            assert!(part.is_some());
                            continue;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    break;
                }
            }
            (done, refused)
        });
    }
    let answers = tasks.join_all().await;
    let done: i64 = answers.iter().map(|(done, _)| done).sum();
    assert_eq!(done + answers.iter().map(|(_, refused)| refused).sum::<i64>(), 320);
    let mut balances = Vec::new();
    for n in 0..10 {
        balances.push(balance(&stores[n % 2], &account(n)).await);
    }
    assert_eq!(balances.iter().sum::<i64>(), 1_000, "{balances:?}");
    assert!(balances.iter().all(|balance| *balance >= 0), "{balances:?}");
    let mut table = connection(&database).await;
    assert_eq!(check_table(&mut table).await, 10 + 2 * done);
    let halves: i64 = sqlx::query_scalar(
        "select count(*) from (select 1 from events where ordinal > 0 or type like '%Withdrawn'
                               group by command_id having count(*) <> 2) as half",
    )
    .fetch_one(&mut table)
    .await
    .unwrap();
    assert_eq!(halves, 0, "commands with one half only");
    assert_eq!(deadlocks(&mut table).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_the_same_partitions_get_their_share() {
    let database = database("fair").await;
    let stores = [open(options(&database)).await, open(options(&database)).await];
    let end = Instant::now() + Duration::from_secs(3);
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let store = stores[task % 2].clone();
        tasks.spawn(async move {
            let mut commands = [0, 0];
            while Instant::now() < end {
                // Now and then a stream that the other process writes, too.
                let shared = commands[task % 2] % 16 == 0;
                let name = if shared { format!("s-{}", task / 8) } else { format!("t-{task}") };
                match store.execute(deposit(&name, 1)).await {
                    Ok(_) => commands[task % 2] += 1,
                    Err(ExecuteError::Contended) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            commands
        });
    }
    let of = tasks
        .join_all()
        .await
        .into_iter()
        .fold([0, 0], |sum, commands| [sum[0] + commands[0], sum[1] + commands[1]]);
    println!("commands of two processes in 3 s: {of:?}");
    let total: i64 = of.iter().sum();
    assert!(of.iter().all(|own| own * 4 >= total), "{of:?}");
    assert_eq!(check_table(&mut connection(&database).await).await, total);
}
