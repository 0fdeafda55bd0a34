//! The processes under test with their Postgres, their Kafka, and a proxy on every link.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldstream_local::free_port;
use foldstream_testkit::proxy::Proxy;
use foldstream_testkit::{eventually, unique};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use system_tests::process::Process;
use system_tests::shop::command_of;
use system_tests::{sockets, sql};

use crate::infra::{Infra, Way};
use crate::ledger::{APP_NAME, SERVICE};

/// A start against infrastructure that is there; more where others run beside it.
const START: Duration = Duration::from_secs(60);
/// How many partitions the topic has.
pub const PARTITIONS: i32 = 4;

/// A role that runs twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `commands`.
    Commands,
    /// `relay`.
    Relay,
}

/// One of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// What it does.
    pub role: Role,
    /// 0 or 1.
    pub number: usize,
}

impl Member {
    /// The n-th `commands`.
    #[must_use]
    pub const fn commands(number: usize) -> Self {
        Member { role: Role::Commands, number }
    }
    /// The n-th `relay`.
    #[must_use]
    pub const fn relay(number: usize) -> Self {
        Member { role: Role::Relay, number }
    }
    fn role_name(self) -> &'static str {
        match self.role {
            Role::Commands => "commands",
            Role::Relay => "relay",
        }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.role_name(), self.number + 1)
    }
}

/// All four.
pub const MEMBERS: [Member; 4] =
    [Member::commands(0), Member::commands(1), Member::relay(0), Member::relay(1)];

/// A member with its links.
#[derive(Debug)]
struct Seat {
    member: Member,
    listen: u16,
    admin: u16,
    database: Proxy,
    /// From clients; only commands have some.
    clients: Option<Proxy>,
    process: Mutex<Option<Arc<Process>>>,
}

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    /// Kafka and Postgres.
    pub infra: Arc<Infra>,
    /// From relays to Kafka.
    pub kafka_link: Proxy,
    /// Given back at the end.
    detour: Mutex<Option<Way>>,
    /// The name of the application, of its topic and its databases.
    app: String,
    seats: Vec<Seat>,
    registry: Mutex<Option<Process>>,
    binary: PathBuf,
    /// Where logs are written.
    pub dir: PathBuf,
    env: Vec<(String, String)>,
    /// Processes that ended in a way they should not have.
    pub misbehaved: Mutex<Vec<String>>,
}

impl World {
    /// Starts infrastructure, registry and all members, and waits until they are ready.
    ///
    /// # Errors
    /// The infrastructure does not start.
    ///
    /// # Panics
    /// A process does not become ready.
    pub async fn start(
        binary: &Path,
        dir: &Path,
        infra: Arc<Infra>,
        env: Vec<(String, String)>,
    ) -> Result<Self, String> {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (detour, socket) = infra.take_detour().ok_or("too many worlds at a time")?;
        let target = format!("127.0.0.1:{}", detour.listen);
        let own = socket.try_clone().map_err(|error| error.to_string())?;
        let kafka_link = Proxy::on_socket(own, target).await;
        let detour = Mutex::new(Some((detour, socket)));
        let app = unique("ledger");
        let postgres = infra.local.postgres_url("postgres");
        for purpose in ["registry", SERVICE, "read"] {
            let database = database_name(&app, purpose);
            let create = format!("create database \"{database}\" template template0 locale 'C'");
            sql::run(&postgres, &create).await?;
        }
        let config = format!("[kafka]\npartitions = {PARTITIONS}\n");
        fs::write(dir.join("foldstream.toml"), config).map_err(|error| error.to_string())?;
        let mut seats = Vec::new();
        for member in MEMBERS {
            let (listen, admin) = (free_port(), free_port());
            let database = Proxy::before(&postgres).await;
            let clients = match member.role {
                Role::Commands => Some(Proxy::to(format!("127.0.0.1:{listen}")).await),
                Role::Relay => None,
            };
            let process = Mutex::new(None);
            seats.push(Seat { member, listen, admin, database, clients, process });
        }
        let world = World {
            infra,
            kafka_link,
            detour,
            app,
            seats,
            registry: Mutex::new(None),
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            env,
            misbehaved: Mutex::default(),
        };
        world.start_all().await?;
        Ok(world)
    }

    async fn start_all(&self) -> Result<(), String> {
        let port = free_port();
        let mut env = self.given();
        env.push(("REGISTRY_DATABASE_URL".into(), self.database_url("registry")));
        env.push(("SCHEMA_REGISTRY_URL".into(), format!("http://127.0.0.1:{port}")));
        env.push(("LEDGERS_DATABASE_URL".into(), self.events_url()));
        let migrate = self.run("migrate", &env);
        let ended = eventually(START, "the migration", async || migrate.ended()).await;
        if !ended.success() {
            return Err(format!("migrate: {ended}\n{}", migrate.tail()));
        }
        env.push(("LISTEN_REGISTRY".into(), format!("127.0.0.1:{port}")));
        env.push(("LISTEN_ADMIN".into(), format!("127.0.0.1:{}", free_port())));
        let registry = self.run("registry", &env);
        *lock(&self.registry) = Some(registry);
        for seat in &self.seats {
            let env = [
                ("SCHEMA_REGISTRY_URL".to_owned(), format!("http://127.0.0.1:{port}")),
                ("LEDGERS_DATABASE_URL".to_owned(), seat.database.instead_of(&self.events_url())),
                ("LISTEN_COMMANDS".to_owned(), format!("127.0.0.1:{}", seat.listen)),
                ("LISTEN_ADMIN".to_owned(), format!("127.0.0.1:{}", seat.admin)),
            ];
            let file = self.dir.join(format!("{}.env", seat.member));
            let text: String =
                env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            fs::write(file, text).map_err(|error| error.to_string())?;
            self.begin(seat.member);
        }
        for member in MEMBERS {
            self.until_ready(member, START).await?;
        }
        Ok(())
    }

    /// What every process is told.
    fn given(&self) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        env.push((APP_NAME.into(), self.app.clone()));
        env.push(("KAFKA_BOOTSTRAP".into(), self.kafka_link.address().to_string()));
        env.push(("READ_DATABASE_URL".into(), self.database_url("read")));
        env.push(("RUST_BACKTRACE".into(), "1".into()));
        env
    }

    fn run(&self, role: &str, env: &[(String, String)]) -> Process {
        let mut command = command_of(&self.binary, &[role], env);
        command.current_dir(&self.dir);
        Process::start(&format!("ledger {role}"), command, &self.dir.join(format!("{role}.log")))
    }

    fn seat(&self, member: Member) -> &Seat {
        let place = MEMBERS.iter().position(|one| *one == member).unwrap_or(0);
        &self.seats[place]
    }

    /// The event database, not through a proxy.
    #[must_use]
    pub fn events_url(&self) -> String {
        self.database_url(SERVICE)
    }

    fn database_url(&self, purpose: &str) -> String {
        self.infra.local.postgres_url(&database_name(&self.app, purpose))
    }

    /// The only topic.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("{}.{SERVICE}", self.app)
    }

    /// The link of a member to its database.
    #[must_use]
    pub fn database_link(&self, member: Member) -> &Proxy {
        &self.seat(member).database
    }

    /// The link of clients to the n-th `commands`.
    #[must_use]
    pub fn client_link(&self, number: usize) -> &Proxy {
        let clients = self.seat(Member::commands(number)).clients.as_ref();
        clients.expect("commands have clients")
    }

    /// Where clients find the n-th `commands`, through its link.
    #[must_use]
    pub fn api(&self, number: usize) -> String {
        format!("http://{}/v1/{SERVICE}", self.client_link(number).address())
    }

    /// A member's process id, while it runs.
    #[must_use]
    pub fn pid(&self, member: Member) -> Option<i32> {
        lock(&self.seat(member).process).as_ref().map(|process| process.pid())
    }

    /// All that run, by name.
    #[must_use]
    pub fn pids(&self) -> Vec<(Member, i32)> {
        let pid = |member: Member| Some((member, self.pid(member)?));
        MEMBERS.into_iter().filter_map(pid).collect()
    }

    /// Starts a member that does not run.
    pub fn begin(&self, member: Member) {
        let seat = self.seat(member);
        let mut process = lock(&seat.process);
        if process.is_some() {
            return;
        }
        let mut env = self.given();
        let own = fs::read_to_string(self.dir.join(format!("{member}.env"))).unwrap_or_default();
        let pairs = own.lines().filter_map(|line| line.split_once('='));
        env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut command = command_of(&self.binary, &[member.role_name()], &env);
        command.current_dir(&self.dir);
        let log = self.dir.join(format!("{member}.log"));
        *process = Some(Arc::new(Process::start(&format!("ledger {member}"), command, &log)));
    }

    /// kill -9.
    pub async fn kill(&self, member: Member) {
        let process = lock(&self.seat(member).process).take();
        if let Some(process) = process {
            blocking(move || process.kill()).await;
        }
    }

    /// A signal.
    pub fn signal(&self, member: Member, signal: Signal) {
        if let Some(pid) = self.pid(member) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// SIGTERM, and whether it ended well within `within`.
    pub async fn terminate(&self, member: Member, within: Duration) {
        let Some(process) = lock(&self.seat(member).process).take() else { return };
        let ended = blocking(move || {
            let ended = process.terminate(within);
            process.kill();
            ended
        });
        let complaint = match ended.await {
            Some(status) if status.success() => return,
            Some(status) => format!("{member} ended with {status} after SIGTERM"),
            None => format!("{member} still ran {within:?} after SIGTERM"),
        };
        lock(&self.misbehaved).push(complaint);
    }

    /// Notes and starts again what ended without being asked to.
    pub fn look_after(&self) {
        for member in MEMBERS {
            let seat = self.seat(member);
            let ended = lock(&seat.process).as_ref().and_then(|process| process.ended());
            if let Some(status) = ended {
                let complaint = format!("{member} ended by itself with {status}");
                lock(&self.misbehaved).push(complaint);
                lock(&seat.process).take();
                self.begin(member);
            }
        }
    }

    /// Waits until a member says that it is ready.
    ///
    /// # Errors
    /// Not within `within`.
    pub async fn until_ready(&self, member: Member, within: Duration) -> Result<(), String> {
        let url = format!("http://127.0.0.1:{}/readyz", self.seat(member).admin);
        let began = Instant::now();
        let mut last = String::new();
        let client = client(Duration::from_secs(5));
        while began.elapsed() < within {
            match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = answer.text().await.unwrap_or_default(),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("{member} is not ready within {within:?}: {last}"))
    }

    /// What a member has written to its log.
    #[must_use]
    pub fn log(&self, member: Member) -> String {
        let bytes = fs::read(self.dir.join(format!("{member}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Immediate shutdown of Postgres: it aborts without writing anything down.
    pub async fn abort_postgres(&self) {
        let Some(pid) = self.infra.local.postgres_pid().and_then(|pid| i32::try_from(pid).ok())
        else {
            return;
        };
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        eventually(START, "the end of Postgres", async || {
            self.infra.local.postgres_pid().is_none() && !sockets::runs(pid)
        })
        .await;
    }

    /// SIGSTOP or SIGCONT for Kafka.
    pub fn signal_kafka(&self, signal: Signal) {
        if let Some(pid) = self.infra.local.kafka_pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Heals every link, continues every process, starts whatever does not run.
    ///
    /// # Errors
    /// Kafka or Postgres do not come up.
    pub async fn heal(&self) -> Result<(), String> {
        for seat in &self.seats {
            seat.database.heal();
            if let Some(clients) = &seat.clients {
                clients.heal();
            }
        }
        self.kafka_link.heal();
        self.signal_kafka(Signal::SIGCONT);
        let infra = Arc::clone(&self.infra);
        let started =
            blocking(move || infra.local.start_postgres().and_then(|()| infra.local.start_kafka()));
        started.await.map_err(|error| error.to_string())?;
        for member in MEMBERS {
            self.signal(member, Signal::SIGCONT);
            self.begin(member);
        }
        Ok(())
    }

    /// Ends the members with SIGTERM; how they end is noted.
    pub async fn terminate_all(&self, within: Duration) {
        let [a, b, c, d] = MEMBERS.map(|member| self.terminate(member, within));
        tokio::join!(a, b, c, d);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(way) = lock(&self.detour).take() {
            self.infra.give_back(way);
        }
    }
}

fn database_name(app: &str, purpose: &str) -> String {
    format!("{app}_{purpose}").replace('-', "_")
}

/// An HTTP client without memory of earlier answers.
///
/// # Panics
/// The machine has no randomness for TLS.
#[must_use]
pub fn client(deadline: Duration) -> reqwest::Client {
    let client = reqwest::Client::builder().timeout(deadline).pool_max_idle_per_host(64).build();
    client.expect("a client without options is built")
}

/// Runs what blocks where that is allowed.
///
/// # Panics
/// It panics.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
