//! The roles as processes of their own, against infrastructure that was there before; and what is
//! wrong with a configuration.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use foldstream_local::{Local, Options};
use foldstream_testkit::{eventually, free_port};
use system_tests::api::Api;
use system_tests::documents::{credit_note, invoice, new_id};
use system_tests::place::Place;
use system_tests::process::Process;
use system_tests::shop::{DRAIN, command, launch, run};
use system_tests::sql;

use crate::{failing, seen};

const WITHIN: Duration = Duration::from_secs(60);

type Env = Vec<(String, String)>;

struct Role {
    name: &'static str,
    process: Process,
    /// Its own port.
    api: Api,
    admin: Api,
}

impl Role {
    fn start(place: &Place, name: &'static str, own: (&str, u16), given: &Env) -> Self {
        let admin = free_port();
        let mut env = given.clone();
        env.push(("LISTEN_ADMIN".to_owned(), format!("127.0.0.1:{admin}")));
        env.push((own.0.to_owned(), format!("127.0.0.1:{}", own.1)));
        let mut command = command(&[name], &env);
        command.current_dir(place.dir());
        let log = place.dir().join(format!("{name}.log"));
        let http = |port: u16| Api::new(&format!("http://127.0.0.1:{port}"));
        Role {
            name,
            process: Process::start(&format!("shop {name}"), command, &log),
            api: http(own.1),
            admin: http(admin),
        }
    }

    async fn is_ready(&self) {
        eventually(WITHIN, self.name, async || {
            assert_eq!(self.process.ended(), None, "{}", self.process.tail());
            let answer = self.admin.send("GET", "/readyz", &[], None).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.shown()) }
        })
        .await;
    }

    async fn waits_for(&self, what: &str) {
        let waits = format!("{} says that it waits for the {what}", self.name);
        eventually(WITHIN, &waits, async || {
            assert_eq!(self.process.ended(), None, "{}", self.process.tail());
            let said = self.process.stderr().to_lowercase();
            said.lines().any(|line| line.contains(what) && line.contains("wait"))
        })
        .await;
    }
}

/// Infrastructure is started and stopped by calls that block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

fn env(pairs: &[(&str, String)]) -> Env {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_and_roles_run_against_given_infrastructure_and_wait_for_the_registry() {
    let local = blocking(|| Local::ephemeral(&mut |_| {})).await;
    let local = local.expect("real Kafka and Postgres start");
    let place = Place::new();
    let registry = free_port();
    for database in ["shop_registry", "shop_invoicing", "shop_read"] {
        let create = format!("create database {database} template template0 locale 'C'");
        sql::run(&local.postgres_url("postgres"), &create).await.expect("it is created");
    }
    let given = env(&[
        ("KAFKA_BOOTSTRAP", local.kafka().to_owned()),
        ("SCHEMA_REGISTRY_URL", format!("http://127.0.0.1:{registry}")),
        ("INVOICING_DATABASE_URL", local.postgres_url("shop_invoicing")),
        ("READ_DATABASE_URL", local.postgres_url("shop_read")),
    ]);
    let with_registry =
        [given.clone(), env(&[("REGISTRY_DATABASE_URL", local.postgres_url("shop_registry"))])]
            .concat();
    let migrated = run(&place, &["migrate"], &with_registry, WITHIN).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);

    // `dev` and no registry: it waits, says so, and is not ready.
    let with_postgres =
        [given.clone(), env(&[("DATABASE_URL", local.postgres_url("postgres"))])].concat();
    let dev = launch(&place, &with_postgres);
    eventually(WITHIN, "dev says that it waits for the registry", async || {
        assert_eq!(dev.ended(), None, "{}", dev.tail());
        let said = dev.stderr().to_lowercase();
        said.lines().any(|line| line.contains("registry") && line.contains("wait"))
    })
    .await;
    assert_eq!(dev.stdout(), [""; 0]);
    let registry = Role::start(&place, "registry", ("LISTEN_REGISTRY", registry), &with_registry);
    registry.is_ready().await;
    eventually(WITHIN, "dev is ready", async || dev.stdout().len() == 1).await;
    let api = Api::new(&format!("http://127.0.0.1:{}", place.base));
    let id = new_id();
    let created = api.post("/v1/invoices", &invoice(&id)).await;
    let token = created.expect(201).need("consistency-token");
    seen(&api, &format!("/v1/invoices/{id}"), &token, WITHIN).await;
    assert!(dev.terminate(DRAIN).is_some_and(|status| status.success()), "{}", dev.tail());

    roles(&place, &given, &id).await;
    let ended = registry.process.terminate(DRAIN);
    assert!(ended.is_some_and(|s| s.success()), "{ended:?} {}", registry.process.tail());
    blocking(move || drop(local)).await;
}

/// Each role as a process; `before` was posted through another process.
async fn roles(place: &Place, given: &Env, before: &str) {
    let start =
        |name: &'static str, listen: &str| Role::start(place, name, (listen, free_port()), given);
    let commands = start("commands", "LISTEN_COMMANDS");
    let relay = start("relay", "LISTEN_API");
    let projections = start("projections", "LISTEN_API");
    let queries = start("queries", "LISTEN_QUERIES");
    let all = [&commands, &relay, &projections, &queries];
    for role in all {
        role.is_ready().await;
        assert_eq!(failing(&role.admin).await, Ok(Vec::new()), "{}", role.name);
    }
    let id = format!("C{}", new_id());
    let created = commands.api.post("/v1/credit-notes", &credit_note(&id)).await;
    let token = created.expect(201).need("consistency-token");
    let read = seen(&queries.api, &format!("/v1/invoices/{id}"), &token, WITHIN).await.json();
    let row = read.get("data").unwrap_or(&read);
    assert_eq!(row["kind"], "credit", "{row}");
    queries.api.get(&format!("/v1/invoices/{before}")).await.expect(200);
    commands.api.post("/v1/invoices", &invoice(before)).await.expect(200);
    // Each port has its own routes only.
    commands.api.get("/v1/sales_by_day").await.problem(404, "not-found");
    queries.api.get(&format!("/v1/credit-notes/{id}/history")).await.problem(404, "not-found");
    for role in all {
        let metrics = role.admin.get("/metrics").await;
        let text = String::from_utf8_lossy(&metrics.expect(200).body).into_owned();
        assert!(text.contains("build_info"), "{}", role.name);
    }
    for role in all {
        let ended = role.process.terminate(DRAIN);
        let well = ended.is_some_and(|status| status.success());
        assert!(well, "{}: {ended:?} {}", role.name, role.process.tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_waits_for_a_database_that_is_down_and_goes_on_when_it_is_up() {
    let place = Place::new();
    let mut options = Options::in_dir(place.data_dir());
    options.kafka = false;
    let local = blocking(move || Local::start(options, &mut |_| {})).await;
    let local = Arc::new(local.expect("a real Postgres starts"));
    let given = env(&[
        ("KAFKA_BOOTSTRAP", format!("127.0.0.1:{}", free_port())),
        ("SCHEMA_REGISTRY_URL", format!("http://127.0.0.1:{}", free_port())),
        ("REGISTRY_DATABASE_URL", local.postgres_url("shop_registry")),
        ("INVOICING_DATABASE_URL", local.postgres_url("shop_invoicing")),
        ("READ_DATABASE_URL", local.postgres_url("shop_read")),
    ]);
    // It makes the databases, too, and a second run finds nothing to do.
    for _ in 0..2 {
        let migrated = run(&place, &["migrate"], &given, WITHIN).await;
        assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    }
    let stopping = Arc::clone(&local);
    blocking(move || stopping.stop_postgres()).await;
    let migrated = run(&place, &["migrate"], &given, WITHIN).await;
    assert_eq!(migrated.code, Some(69), "{}", migrated.stderr);

    let start =
        |name: &'static str, listen: &str| Role::start(&place, name, (listen, free_port()), &given);
    let roles = [
        start("registry", "LISTEN_REGISTRY"),
        start("commands", "LISTEN_COMMANDS"),
        start("queries", "LISTEN_QUERIES"),
    ];
    for role in &roles[..2] {
        role.waits_for("database").await;
    }
    for role in &roles {
        let says_so = format!("{} is not ready", role.name);
        eventually(WITHIN, &says_so, async || {
            let answer = role.admin.send("GET", "/readyz", &[], None).await;
            answer.is_ok_and(|answer| answer.status == 503)
        })
        .await;
        role.admin.get("/livez").await.expect(200);
    }
    let password = local.postgres_url("x");
    let password = password.split([':', '@']).nth(2).expect("its address has a password");
    let starting = Arc::clone(&local);
    blocking(move || starting.start_postgres()).await.expect("Postgres starts again");
    roles[0].is_ready().await;
    // It has found its database; now the registry is what it waits for.
    roles[1].waits_for("schema registry").await;
    roles[2].is_ready().await;
    for role in &roles {
        let said = role.process.stderr();
        assert!(!said.contains(password), "a password is in the log: {said}");
        let ended = role.process.terminate(DRAIN);
        assert!(ended.is_some_and(|s| s.success()), "{}: {ended:?}", role.name);
    }
    let last = Arc::into_inner(local);
    blocking(move || drop(last)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_with_file_and_line() {
    let place = Place::new();
    let file = place.dir().join("foldstream.toml");
    for (text, line, says) in [
        ("[kafka]\nbootstrap = \"x:1\"\nbootstarp = \"y:1\"\n", 3, "bootstarp"),
        ("[kafka]\n\n\npartitions = \"many\"\n", 4, "partitions"),
        ("[kafka]\npartitions = 0\n", 2, "partitions"),
        ("[kafka\n", 1, ""),
        ("[nonsense]\na = 1\n", 0, "nonsense"),
    ] {
        fs::write(&file, text).expect("it is written");
        let run = run(&place, &["relay"], &[], WITHIN).await;
        assert_eq!(run.code, Some(78), "{text}: {run:?}");
        let at =
            if line == 0 { "foldstream.toml:".into() } else { format!("foldstream.toml:{line}") };
        assert!(run.stderr.contains(&at) && run.stderr.contains(says), "{text}: {}", run.stderr);
    }
    fs::remove_file(&file).expect("it was written");
    for (role, missing) in [("relay", "KAFKA_BOOTSTRAP"), ("queries", "READ_DATABASE_URL")] {
        let admin = env(&[("LISTEN_ADMIN", format!("127.0.0.1:{}", free_port()))]);
        let run = run(&place, &[role], &admin, WITHIN).await;
        assert_eq!(run.code, Some(78), "{role}: {run:?}");
        assert!(run.stderr.contains(missing), "{role}: {}", run.stderr);
    }
    let no_file = run(&place, &["--config", "nowhere.toml", "relay"], &[], WITHIN).await;
    assert_eq!(no_file.code, Some(78), "{no_file:?}");
}
