//! `shop commands` before it writes its first event: the registry is asked, and believed only when
//! its answer is one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use foldstream_kafka::SchemaRegistry;
use foldstream_registry::Registry;
use foldstream_testkit::{TestDatabase, database, eventually, free_port};
use system_tests::api::Api;
use system_tests::documents::{invoice, new_id};
use system_tests::place::Place;
use system_tests::process::Process;
use system_tests::shop::{DRAIN, command, run};
use system_tests::sql;

const WITHIN: Duration = Duration::from_secs(60);
pub(crate) const SUBJECT: &str = "shop.invoices-shop.invoices.InvoiceIssued";
/// What `SUBJECT` may have held before: its instants are texts.
pub(crate) const OTHER: &str = r#"{"type":"record","name":"InvoiceIssued",
    "namespace":"shop.invoices","fields":[{"name":"issued_at","type":"string"}]}"#;

pub(crate) type Env = Vec<(String, String)>;

/// What stands between us and the registry, and answers in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Door {
    Open,
    Error,
    NotFound,
    Empty,
    NotJson,
    Silent,
}

/// Databases of a shop and the real registry behind a door.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) registry: SchemaRegistry,
    door: Arc<Mutex<Door>>,
    events: TestDatabase,
    others: [TestDatabase; 2],
}

impl World {
    pub(crate) async fn new() -> Self {
        let events = database("schemas").await;
        let others = [database("schemas-read").await, database("schemas-registry").await];
        let door = Arc::new(Mutex::new(Door::Open));
        let inner = door.clone();
        let layer = from_fn(move |request: Request, next: Next| {
            let door = *inner.lock().unwrap();
            async move {
                let plain = |status, text: &'static str| (status, text).into_response();
                match door {
                    Door::Open => next.run(request).await,
                    Door::Error => plain(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        r#"{"error_code":50001,"message":"Error in the backend data store"}"#,
                    ),
                    Door::NotFound => plain(StatusCode::NOT_FOUND, "<html>no such page</html>"),
                    Door::Empty => plain(StatusCode::OK, ""),
                    Door::NotJson => plain(StatusCode::OK, "<html>welcome</html>"),
                    Door::Silent => {
                        tokio::time::sleep(Duration::from_secs(40)).await;
                        plain(StatusCode::OK, "")
                    }
                }
            }
        });
        let router = Registry::open(&others[1].url).await.unwrap().router().layer(layer);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let registry = SchemaRegistry::new(&url).unwrap();
        let world = World { place: Place::new(), registry, door, events, others };
        let migrated = run(&world.place, &["migrate"], &world.env(), WITHIN).await;
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
        world
    }

    pub(crate) fn env(&self) -> Env {
        let pairs = [
            ("SCHEMA_REGISTRY_URL", self.registry.url().to_owned()),
            ("INVOICING_DATABASE_URL", self.events.url.clone()),
            ("READ_DATABASE_URL", self.others[0].url.clone()),
            ("REGISTRY_DATABASE_URL", self.others[1].url.clone()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn set(&self, door: Door) {
        *self.door.lock().unwrap() = door;
    }

    async fn learned(&self) -> i64 {
        sql::number(&self.events.url, "select count(*) from schemas").await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_wait_for_a_registry_that_talks_nonsense_and_say_so() {
    let world = World::new().await;
    world.set(Door::Error);
    let (admin, own) = (free_port(), free_port());
    let mut env = world.env();
    env.push(("LISTEN_ADMIN".into(), format!("127.0.0.1:{admin}")));
    env.push(("LISTEN_COMMANDS".into(), format!("127.0.0.1:{own}")));
    let log = world.place.dir().join("commands.log");
    let process = Process::start("shop commands", command(&["commands"], &env), &log);
    let admin = Api::new(&format!("http://127.0.0.1:{admin}"));
    for (door, says) in [
        (Door::Error, "500"),
        (Door::NotFound, "404"),
        (Door::Empty, "an answer that is none"),
        (Door::NotJson, "an answer that is none"),
        (Door::Silent, "does not answer"),
    ] {
        world.set(door);
        eventually(WITHIN, &format!("{door:?} is seen"), async || {
            assert_eq!(process.ended(), None, "{door:?}: {}", process.tail());
            let answer =
                admin.send("GET", "/readyz", &[], None).await.map_err(|e| e.to_string())?;
            let check = answer.json()["checks"]["schemas of invoicing"].clone();
            let detail = check["detail"].as_str().unwrap_or_default();
            let waits = detail.starts_with("waiting for the schema registry, for shop.");
            let seen = answer.status == 503 && check["status"] == "fail" && waits;
            if seen && detail.contains(says) { Ok(()) } else { Err(answer.shown()) }
        })
        .await;
        assert!(process.stderr().contains("waiting for the schema registry"));
        assert_eq!(world.learned().await, 0, "{door:?}");
    }
    world.set(Door::Open);
    eventually(WITHIN, "it is ready", async || {
        let answer = admin.send("GET", "/readyz", &[], None).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.shown()) }
    })
    .await;
    let api = Api::new(&format!("http://127.0.0.1:{own}"));
    api.post("/v1/invoices", &invoice(&new_id())).await.expect(201);

    // What is known needs no registry: the next start does not ask.
    assert!(process.terminate(DRAIN).is_some_and(|s| s.success()), "{}", process.tail());
    world.set(Door::Error);
    let process = Process::start("shop commands", command(&["commands"], &env), &log);
    eventually(WITHIN, "it is ready without a registry", async || {
        let answer = admin.send("GET", "/readyz", &[], None).await.map_err(|e| e.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.shown()) }
    })
    .await;
    assert!(process.terminate(DRAIN).is_some_and(|s| s.success()), "{}", process.tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_do_not_start_with_a_schema_that_the_registry_refuses() {
    let world = World::new().await;
    let other = world.registry.register(SUBJECT, OTHER).await.unwrap();
    let mut env = world.env();
    for name in ["LISTEN_ADMIN", "LISTEN_COMMANDS"] {
        env.push((name.into(), format!("127.0.0.1:{}", free_port())));
    }
    let refused = run(&world.place, &["commands"], &env, WITHIN).await;
    assert_eq!(refused.code, Some(78), "{refused:?}");
    let said = refused.stderr.lines().last().unwrap_or_default();
    for part in
        ["error: the schema registry at", "refuses a schema of this build", SUBJECT, "issued_at"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Nothing was registered in its place.
    assert_eq!(world.registry.register(SUBJECT, OTHER).await, Ok(other));
    let versions = sql::number(
        &world.others[1].url,
        "select count(*) from schema_registry.versions where subject like '%InvoiceIssued'",
    );
    assert_eq!(versions.await, Ok(1));
}
