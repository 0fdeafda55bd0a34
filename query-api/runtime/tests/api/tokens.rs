//! Reading one's own writes: never from before a token, or a clear word why not.

use crate::harness::{Answer, Api, STORE, TOPIC, thing, token, token_of};
use foldstream_core::{ConsistencyToken, TopicPartition, Uuid};
use foldstream_testkit::eventually;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

async fn with_token(api: &Api, path: &str, token: &str, prefer: &str) -> Answer {
    api.get_with(path, &[("consistency-token", token), ("prefer", prefer)]).await
}

#[tokio::test]
async fn an_answer_says_how_fresh_it_is() {
    let api = Api::start("fresh").await;
    api.write(&[thing("a", 1)]).await;
    api.checkpoint(0, 5).await;
    api.checkpoint(3, 2).await;
    for path in ["/v1/things", "/v1/things/a/1", "/v1/things/b/1"] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("read-model-position"), "test.things/0=5, test.things/3=2");
        assert_eq!(answer.header("read-model-lag"), "unknown");
        let token = ConsistencyToken::parse(answer.header("consistency-token")).expect("a token");
        assert_eq!(token.stores[TOPIC], STORE);
        assert_eq!(token.positions[&TopicPartition::new(TOPIC, 3)], 2);
    }
    api.sql(
        "insert into meta.heads (topic, partition, position) values
        ('test.things', 0, 5), ('test.things', 3, 2)",
    )
    .await;
    assert_eq!(api.get("/v1/things").await.header("read-model-lag"), "0");
    api.sql("update meta.heads set position = 9, updated_at = now() where partition = 3").await;
    let lag = api.get("/v1/things").await.header("read-model-lag").parse::<f64>();
    assert!(lag.as_ref().is_ok_and(|lag| *lag > 0.0), "{lag:?}");
    api.sql("update meta.heads set updated_at = now() - interval '6 s'").await;
    assert_eq!(api.get("/v1/things").await.header("read-model-lag"), "unknown");
}

#[tokio::test]
async fn a_token_that_is_reached_is_answered_and_handed_on() {
    let api = Api::start("reached").await;
    api.write(&[thing("a", 1)]).await;
    api.checkpoint(0, 5).await;
    let answer = with_token(&api, "/v1/things/a/1", &token(0, 5), "wait=0").await;
    assert_eq!(answer.status, 200);
    // A topic that the model does not read is no reason to wait, but stays in the token.
    let other = token_of(Uuid::from_u128(9), "test.others", 1, 1_000);
    let answer = with_token(&api, "/v1/things", &other, "wait=0").await;
    assert_eq!(answer.status, 200);
    let merged = ConsistencyToken::parse(answer.header("consistency-token")).expect("a token");
    assert_eq!(merged.positions[&TopicPartition::new("test.others", 1)], 1_000);
    assert_eq!(merged.positions[&TopicPartition::new(TOPIC, 0)], 5);
}

#[tokio::test]
async fn a_token_waits_for_its_position_and_sees_the_rows() {
    let api = Api::start("wait").await;
    api.checkpoint(0, 1).await;
    let token = token(0, 2);
    let reads = (0..20).map(|_| with_token(&api, "/v1/things/a/1", &token, "wait=5"));
    let write = async {
        api.waiting(20).await;
        api.write(&[thing("a", 1)]).await;
        api.checkpoint(0, 2).await;
        Instant::now()
    };
    let (answers, written) = tokio::join!(join_all(reads), write);
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("read-model-position"), "test.things/0=2");
    }
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
    assert_eq!(count(&api, "waited"), 20);
}

async fn join_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in all.iter_mut().zip(&mut done).filter(|(_, o)| o.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *output = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

fn count(api: &Api, outcome: &str) -> u64 {
    let families = api.registry.gather();
    let family = families.iter().find(|f| f.name() == "consistency_token_reads_total");
    let metrics = family.into_iter().flat_map(|f| f.get_metric());
    let of = metrics.filter(|m| m.get_label().iter().any(|label| label.value() == outcome));
    of.map(|m| m.get_counter().get_value() as u64).sum()
}

#[tokio::test]
async fn a_token_not_reached_in_time_is_told_so() {
    let api = Api::start("behind").await;
    api.write(&[thing("a", 1)]).await;
    api.checkpoint(0, 5).await;
    let started = Instant::now();
    let answer = with_token(&api, "/v1/things", &token(0, 7), "wait=1").await;
    assert_eq!(answer.problem(), (503, "read-model-behind".to_owned()));
    assert!((1.0..3.0).contains(&started.elapsed().as_secs_f64()));
    let body = answer.json();
    assert_eq!(body["required"]["test.things/0"], 7);
    assert_eq!(body["current"]["test.things/0"], 5);
    assert_eq!((&body["reason"], &body["lag_seconds"]), (&"behind".into(), &().into()));
    assert!(answer.header("retry-after").parse::<u64>().is_ok());
    assert_eq!(answer.header("read-model-position"), "test.things/0=5");
    assert_eq!(count(&api, "behind"), 1);
    // A partition that was never seen, and what stands in the way.
    for (state, reason) in [("running", "behind"), ("gap", "gap"), ("failed", "failed")] {
        api.sql(&format!("update meta.checkpoints set state = '{state}'")).await;
        let answer = with_token(&api, "/v1/things/a/1", &token(0, 6), "wait=0").await;
        assert_eq!(answer.json()["reason"], reason);
    }
    let answer = with_token(&api, "/v1/things", &token(5, 1), "wait=0").await;
    assert_eq!(answer.json()["current"]["test.things/5"], 0);
    let lenient = with_token(&api, "/v1/things", &token(0, 7), "wait=0, handling=lenient").await;
    assert_eq!(lenient.data().len(), 1);
    let kept = ConsistencyToken::parse(lenient.header("consistency-token")).expect("a token");
    assert_eq!(kept.positions[&TopicPartition::new(TOPIC, 0)], 7);
}

#[tokio::test]
async fn a_token_of_another_store_is_refused() {
    let api = Api::start("store").await;
    api.checkpoint(0, 5).await;
    let other = token_of(Uuid::from_u128(8), TOPIC, 0, 1);
    for prefer in ["wait=0", "handling=lenient"] {
        let answer = with_token(&api, "/v1/things", &other, prefer).await;
        assert_eq!(answer.problem(), (409, "token-of-other-store".to_owned()));
    }
}

#[tokio::test]
async fn a_swap_to_another_build_is_followed_without_a_pause() {
    let api = Api::start("swap").await;
    api.write(&[thing("old", 1)]).await;
    api.checkpoint(0, 5).await;
    assert_eq!(api.get("/v1/things").await.data()[0]["name"], "old");
    let second = api.second_build().await;
    api.write_to(&second, &[thing("new", 1)]).await;
    api.checkpoint_of(2, 0, 6).await;
    let done = AtomicUsize::new(0);
    let reads = async {
        let mut names = Vec::new();
        for _ in 0..60 {
            done.fetch_add(1, Ordering::Relaxed);
            let answer = api.get("/v1/things").await;
            let position = answer.header("read-model-position").to_owned();
            names.push((answer.data()[0]["name"].clone(), position));
        }
        names
    };
    let swap = async {
        eventually(Duration::from_secs(10), "some reads", async || {
            done.load(Ordering::Relaxed) > 5
        })
        .await;
        api.swap().await;
        api.sql("drop schema rm_things_b1 cascade").await;
    };
    let (seen, ()) = tokio::join!(reads, swap);
    for (name, position) in &seen {
        let expected = if name == "old" { "test.things/0=5" } else { "test.things/0=6" };
        assert_eq!(position, expected, "rows and place are of one build");
    }
    let answer = with_token(&api, "/v1/things", &token(0, 6), "wait=0").await;
    assert_eq!(answer.data()[0]["name"], "new");
}

#[tokio::test]
async fn without_a_live_build_the_read_model_is_being_built() {
    let api = Api::start("building").await;
    for change in [
        "update meta.builds set state = 'live', version = 2",
        "update meta.builds set state = 'building', version = 1",
    ] {
        api.sql(change).await;
        for path in ["/v1/things", "/v1/things/a/1"] {
            let answer = api.get(path).await;
            assert_eq!(answer.problem(), (503, "read-model-behind".to_owned()));
            assert_eq!(answer.json()["reason"], "rebuilding");
        }
    }
    api.sql("update meta.builds set state = 'live'").await;
    assert_eq!(api.get("/v1/things").await.status, 200);
}
