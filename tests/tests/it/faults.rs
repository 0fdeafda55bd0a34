//! Kafka or Postgres goes away and comes back.

use std::time::{Duration, Instant};

use foldstream_local::Local;
use foldstream_testkit::eventually;
use system_tests::documents::{invoice, new_id};
use system_tests::shop::{DRAIN, Shop};
use tokio::sync::{Mutex, MutexGuard};

use crate::{failing, seen};

const NOTICED: Duration = Duration::from_secs(20);
const RECOVERED: Duration = Duration::from_secs(60);

/// Infrastructure whose parts these tests stop and start: one test at a time.
struct Stage {
    local: &'static Local,
    _alone: MutexGuard<'static, ()>,
}

async fn stage() -> Stage {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let alone = ALONE.lock().await;
    let local = blocking(|| match foldstream_local::shared() {
        Ok(local) => local,
        Err(error) => panic!("real Kafka and Postgres do not start: {error}"),
    });
    Stage { local: local.await, _alone: alone }
}

/// Infrastructure is started and stopped by calls that block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

impl Stage {
    async fn shop(&self) -> Shop {
        // What a test before this one may have left stopped.
        let local = self.local;
        let up = blocking(move || local.start_kafka().and_then(|()| local.start_postgres()));
        up.await.expect("the infrastructure is up");
        let given = [
            ("KAFKA_BOOTSTRAP", self.local.kafka().to_owned()),
            ("DATABASE_URL", self.local.postgres_url("postgres")),
        ];
        let env = given.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Shop::start_with(env).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_commands_go_on_and_everything_drains_when_it_is_back() {
    let stage = stage().await;
    let shop = stage.shop().await;
    let (api, admin, before) = (shop.api(), shop.admin(), new_id());
    let created = api.post("/v1/invoices", &invoice(&before)).await;
    let token = created.expect(201).need("consistency-token");
    seen(&api, &format!("/v1/invoices/{before}"), &token, NOTICED).await;

    let local = stage.local;
    blocking(move || local.kill_kafka()).await;
    let mut written = Vec::new();
    for _ in 0..20 {
        let (id, began) = (new_id(), Instant::now());
        let created = api.post("/v1/invoices", &invoice(&id)).await;
        written.push((id, created.expect(201).need("consistency-token")));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    let named = eventually(NOTICED, "/readyz says so", async || {
        let failing = failing(&admin).await?;
        let named = failing.iter().any(|n| n.contains("kafka") || n.contains("relay"));
        if named { Ok(failing) } else { Err(format!("{failing:?}")) }
    });
    println!("without Kafka /readyz names {:?}", named.await);
    assert_eq!(admin.get("/readyz").await.status, 503);
    admin.get("/livez").await.expect(200);
    // What was there stays readable; what is new says why it is not.
    api.get(&format!("/v1/invoices/{before}")).await.expect(200);
    let (id, token) = &written[0];
    let headers = [("consistency-token", token.as_str()), ("prefer", "wait=0")];
    let behind = api.get_with(&format!("/v1/invoices/{id}"), &headers).await;
    behind.problem(503, "read-model-behind");

    let (local, back) = (stage.local, Instant::now());
    blocking(move || local.start_kafka()).await.expect("Kafka starts again");
    for (id, token) in &written {
        seen(&api, &format!("/v1/invoices/{id}"), token, RECOVERED).await;
    }
    println!("drained {:.1} s after Kafka was started", back.elapsed().as_secs_f64());
    eventually(NOTICED, "all is well", async || failing(&admin).await.map(|f| f.is_empty())).await;
    eventually(NOTICED, "ready", async || admin.get("/readyz").await.status == 200).await;
    assert!(shop.terminate(DRAIN).is_some_and(|status| status.success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_everything_says_503_and_recovers_by_itself() {
    let stage = stage().await;
    let shop = stage.shop().await;
    let (api, admin, id, key) = (shop.api(), shop.admin(), new_id(), new_id());
    api.post("/v1/invoices", &invoice(&new_id())).await.expect(201);

    let local = stage.local;
    blocking(move || local.kill_postgres()).await;
    let headers = [("idempotency-key", key.as_str())];
    let began = Instant::now();
    let refused = api.post_with("/v1/invoices", &invoice(&id), &headers).await;
    refused.problem(503, "unavailable");
    assert!(refused.need("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
    assert!(!String::from_utf8_lossy(&refused.body).to_lowercase().contains("sql"));
    for path in ["/v1/sales_by_day", "/v1/invoices/x", "/v1/invoices/x/history"] {
        let answer = api.get(path).await;
        answer.problem(503, "unavailable");
        answer.need("retry-after");
    }
    println!("four refusals took {:.1} s", began.elapsed().as_secs_f64());
    eventually(NOTICED, "/readyz says so", async || {
        let failing = failing(&admin).await?;
        if failing.is_empty() { Err("all is well".to_owned()) } else { Ok(failing) }
    })
    .await;
    admin.get("/livez").await.expect(200);

    let (local, back) = (stage.local, Instant::now());
    blocking(move || local.start_postgres()).await.expect("Postgres starts again");
    let created = eventually(RECOVERED, "a command is taken", async || {
        let answer = api.post_with("/v1/invoices", &invoice(&id), &headers).await;
        match answer.status {
            201 => Ok(answer),
            503 => Err(answer.shown()),
            _ => panic!("{}", answer.shown()),
        }
    })
    .await;
    println!("a command was taken {:.1} s after Postgres was back", back.elapsed().as_secs_f64());
    let token = created.need("consistency-token");
    seen(&api, &format!("/v1/invoices/{id}"), &token, RECOVERED).await;
    println!("and seen after {:.1} s", back.elapsed().as_secs_f64());
    let history = api.get(&format!("/v1/invoices/{id}/history")).await.expect(200).json();
    assert_eq!(history["data"].as_array().map(Vec::len), Some(1), "{history}");
    eventually(RECOVERED, "ready", async || admin.get("/readyz").await.status == 200).await;
    assert!(shop.terminate(DRAIN).is_some_and(|status| status.success()));
}
