//! The shop: `shop dev`, its roles, its tools.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use foldstream_testkit::eventually;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::api::Api;
use crate::place::Place;
use crate::process::Process;

/// A start with children of its own takes some seconds; more where others run beside it.
const START: Duration = Duration::from_secs(90);
/// SIGTERM to the end: what is promised.
pub const DRAIN: Duration = Duration::from_secs(15);

/// The line that `shop dev --json` prints when everything runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Commands and queries.
    pub api: String,
    /// Health, metrics, operations.
    pub admin: String,
    /// The schema registry.
    pub registry: String,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// Postgres, as its administrator.
    pub postgres: String,
    /// The database of the read models, as its owner.
    pub read_database: String,
    /// The same as an analyst.
    pub analyst: String,
    /// The operators' page.
    pub console: String,
    /// A token, once the API asks for one.
    pub token: Option<String>,
}

/// A command line of the shop, with nothing of this process's configuration.
#[must_use]
pub fn command(args: &[&str], env: &[(String, String)]) -> Command {
    command_of(&foldstream_testkit::binary("shop"), args, env)
}

/// The same of another application.
#[must_use]
pub fn command_of(binary: &Path, args: &[&str], env: &[(String, String)]) -> Command {
    let mut command = Command::new(binary);
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_none_or(is_configuration) {
            command.env_remove(name);
        }
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command
}

fn is_configuration(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "KAFKA_BOOTSTRAP",
        "DATABASE_URL",
        "SCHEMA_REGISTRY_URL",
        "CURSOR_SECRET",
        "FOLDSTREAM_API",
        "RUST_LOG",
    ];
    let prefixes = ["LISTEN_", "LOG_", "HTTP_", "KAFKA_"];
    NAMES.contains(&name)
        || name.ends_with("_DATABASE_URL")
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// `shop dev` over a data directory of its own.
#[derive(Debug)]
pub struct Shop {
    /// Where it lives.
    pub place: Place,
    env: Vec<(String, String)>,
    running: Mutex<Option<Arc<Process>>>,
    ready: Ready,
    /// From the start of the process to its line.
    pub started_in: Duration,
}

impl Shop {
    /// A new one with Kafka and Postgres of its own, without the sample.
    ///
    /// # Panics
    /// It does not become ready.
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// The same with these variables in its environment.
    ///
    /// # Panics
    /// It does not become ready.
    pub async fn start_with(env: Vec<(String, String)>) -> Self {
        let place = Place::new();
        let (process, ready, started_in) = started(&place, &env).await;
        Self { place, env, running: Mutex::new(Some(process)), ready, started_in }
    }

    /// Starts it again over the same data directory.
    ///
    /// # Panics
    /// It does not become ready.
    pub async fn restart(&mut self) {
        self.kill();
        let (process, ready, started_in) = started(&self.place, &self.env).await;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        (self.ready, self.started_in) = (ready, started_in);
    }

    /// Where everything is.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// A client of its API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.ready.api)
    }

    /// A client of its admin port.
    #[must_use]
    pub fn admin(&self) -> Api {
        Api::new(&self.ready.admin)
    }

    /// The address of another database on its server, as administrator.
    pub fn database(&self, name: &str) -> String {
        with_database(&self.ready.postgres, name)
    }

    /// The process, while it has one.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process id.
    ///
    /// # Panics
    /// It was stopped.
    pub fn pid(&self) -> i32 {
        self.process().expect("it runs").pid()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        if let Some(process) = self.take() {
            process.kill();
        }
    }

    /// SIGTERM, then how it ended; it is killed when that takes longer than `within`.
    pub fn terminate(&self, within: Duration) -> Option<ExitStatus> {
        self.take()?.terminate(within)
    }

    /// What a test that failed wants to see.
    pub fn tail(&self) -> String {
        self.process().map(|process| process.tail()).unwrap_or_default()
    }

    fn take(&self) -> Option<Arc<Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Shop {
    /// In order, so that its own children are gone before their data are removed.
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
        let _ = self.terminate(DRAIN);
    }
}

async fn started(place: &Place, env: &[(String, String)]) -> (Arc<Process>, Ready, Duration) {
    let began = Instant::now();
    let process = launch(place, env);
    let line = eventually(START, "the shop's line on standard output", async || {
        if let Some(status) = process.ended() {
            panic!("the shop ended with {status}");
        }
        process.stdout().first().cloned()
    });
    let line = line.await;
    let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    (process, ready, began.elapsed())
}

/// Starts `shop dev` and does not wait for anything.
#[must_use]
pub fn launch(place: &Place, env: &[(String, String)]) -> Arc<Process> {
    let (data_dir, base) = (place.data_dir(), place.base.to_string());
    let mut command = command(&["dev", "--json", "--no-sample", "--port-base", &base], env);
    command.arg("--data-dir").arg(data_dir).current_dir(place.dir());
    Arc::new(Process::start("shop dev", command, &place.dir().join("dev.log")))
}

/// The same server's other database.
///
/// # Panics
/// `url` is no URL.
#[must_use]
pub fn with_database(url: &str, name: &str) -> String {
    let mut url: reqwest::Url = url.parse().expect("the shop prints URLs");
    url.set_path(name);
    url.into()
}

/// A shop that all tests of the process use, who do not disturb each other: each has ids of its
/// own. It ends with the process.
pub struct Shared(&'static Shop);

static SHARED: OnceCell<Shop> = OnceCell::const_new();

/// The shared shop; the first who asks starts it.
///
/// # Panics
/// It does not become ready.
pub async fn shared() -> Shared {
    Shared(
        SHARED
            .get_or_init(async || {
                let shop = Shop::start().await;
                at_exit(end_shared);
                shop
            })
            .await,
    )
}

extern "C" fn end_shared() {
    if let Some(shop) = SHARED.get() {
        let _ = shop.terminate(DRAIN);
        shop.place.remove();
    }
}

#[expect(unsafe_code, reason = "std has no way to run code when the process exits")]
fn at_exit(end: extern "C" fn()) {
    // SAFETY: `end` is a function of the program itself and lives as long as it does.
    unsafe {
        libc::atexit(end);
    }
}

impl std::ops::Deref for Shared {
    type Target = Shop;

    fn deref(&self) -> &Shop {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.tail());
        }
    }
}

/// A run of the shop's command line to its end.
#[derive(Debug)]
pub struct Run {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Lines of standard output.
    pub stdout: Vec<String>,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// The last line of standard output as JSON.
    ///
    /// # Panics
    /// There is none.
    pub fn json(&self) -> Value {
        let line = self.stdout.last().unwrap_or_else(|| panic!("no output; {}", self.stderr));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

/// Runs a command of the shop to its end.
///
/// # Panics
/// It does not end within `within`.
pub async fn run(place: &Place, args: &[&str], env: &[(String, String)], within: Duration) -> Run {
    let log = place.dir().join(format!("run-{}.log", uuid::Uuid::new_v4().simple()));
    let mut command = command(args, env);
    command.current_dir(place.dir());
    let process = Process::start(&format!("shop {}", args.join(" ")), command, &log);
    let status = eventually(within, "the end of a command", async || process.ended()).await;
    Run { code: status.code(), stdout: process.output(), stderr: process.stderr() }
}
