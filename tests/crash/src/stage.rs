//! A run from its beginning to its verdict.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::check::{Facts, Findings, Invariant, Limits, Recovery, Running, Told, Violation, check};
use crate::faults::{Entry, Fault, Faults};
use crate::history::{History, Kind, Outcome};
use crate::infra::Infra;
use crate::load::{Clients, Load};
use crate::table::Tables;
use crate::topic;
use crate::watch::{Watch, sample};
use crate::world::{MEMBERS, PARTITIONS, World, blocking, lock};

/// After the last heal everything unknown is settled within this time.
const RESOLVE: Duration = Duration::from_secs(90);
/// The traces of a run that went well are kept where this variable is set.
const KEEP: &str = "CRASH_KEEP";
/// SIGTERM to the end.
const DRAIN: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names the directory of the run.
    pub name: String,
    /// Decides load and faults.
    pub seed: u64,
    /// For how long there are load and faults.
    pub lasts: Duration,
    /// A fault that comes before those that the seed draws, on and then off for so long.
    pub first: Option<(Fault, Duration)>,
    /// What clients do.
    pub load: Load,
    /// The application.
    pub binary: PathBuf,
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// What is still well.
    pub limits: Limits,
    /// How to run it again, for people.
    pub again: String,
}

impl Plan {
    /// The ordinary one, of this seed and length.
    #[must_use]
    pub fn new(binary: &Path, name: &str, seed: u64, lasts: Duration) -> Self {
        let minutes = lasts.as_secs_f64() / 60.0;
        Plan {
            name: name.to_owned(),
            seed,
            lasts,
            first: None,
            load: Load::default(),
            binary: binary.to_owned(),
            env: Vec::new(),
            limits: Limits::default(),
            again: format!("cargo x crash --minutes {minutes:.2} --seed {seed}"),
        }
    }

    /// Where its traces are.
    fn dir(&self) -> PathBuf {
        // The binary lies in target/<profile>.
        let target = self.binary.ancestors().nth(2).unwrap_or(Path::new("."));
        target.join("crash").join(format!("{}-seed-{}", self.name, self.seed))
    }
}

/// How a run went.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How long load and faults lasted, in seconds.
    pub seconds: f64,
    /// Operations by what became of them, and requests by kind.
    pub operations: BTreeMap<&'static str, usize>,
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// How soon everything was back.
    pub recoveries: Vec<Recovery>,
    /// The peak memory of each member in KiB.
    pub rss_kib: BTreeMap<String, u64>,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// Where its traces are, if it failed.
    pub dir: Option<PathBuf>,
    /// How to run it again.
    pub again: String,
}

impl Report {
    /// Whether an invariant was violated.
    #[must_use]
    pub fn violates(&self, invariant: Invariant) -> bool {
        self.violations.iter().any(|violation| violation.invariant == invariant)
    }
}

/// A running world with clients, faults and a watch.
#[derive(Debug)]
pub struct Stage {
    /// What is run.
    pub plan: Plan,
    /// The processes.
    pub world: Arc<World>,
    /// What clients see.
    pub history: Arc<History>,
    /// The clients.
    pub clients: Arc<Clients>,
    /// What goes wrong.
    pub faults: Faults,
    watch: Arc<Watch>,
    watching: JoinHandle<()>,
    began: Instant,
    dir: PathBuf,
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(plan: Plan, infra: Arc<Infra>) -> Result<Self, String> {
        let dir = plan.dir();
        let _ = fs::remove_dir_all(&dir);
        let world = Arc::new(World::start(&plan.binary, &dir, infra, plan.env.clone()).await?);
        let history = History::new(&dir.join("history.ndjson"));
        let history = Arc::new(history.map_err(|error| error.to_string())?);
        let clients = Arc::new(Clients::new(vec![world.api(0), world.api(1)], history.clone()));
        let faults = Faults::new(world.clone(), history.clone());
        let watch = Arc::new(Watch::default());
        let watching = tokio::spawn(watch.clone().run(world.clone(), history.clone()));
        let began = Instant::now();
        Ok(Stage { plan, world, history, clients, faults, watch, watching, began, dir })
    }

    /// Load and faults as the seed has them.
    ///
    /// # Errors
    /// Kafka or Postgres do not come up again.
    pub async fn storm(&self) -> Result<(), String> {
        let until = Instant::now() + self.plan.lasts;
        let load = crate::load::run(self.clients.clone(), &self.plan.load, self.plan.seed, until);
        let faults = async {
            if let Some((first, on)) = self.plan.first {
                self.faults.round(&[first], on).await?;
                sleep(on).await;
            }
            self.faults.drive(self.plan.seed, until).await
        };
        let (faults, ()) = tokio::join!(faults, load);
        faults
    }

    /// Mends everything, settles what is unknown, waits for the backlog, compares.
    ///
    /// # Errors
    /// Kafka or Postgres do not come up, or do not answer.
    pub async fn finish(self) -> Result<Report, String> {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut findings = Findings::default();
        self.world.heal().await?;
        let healed = self.history.now();
        let (fault, class) = ("the last heal".to_owned(), "last".to_owned());
        lock(&self.faults.log).push(Entry { fault, class, from: healed, to: healed });
        self.probe().await;
        self.clients.resolve(Instant::now() + RESOLVE).await;
        for op in self.history.unresolved() {
            let case = format!("{:?}", self.history.operation(op));
            findings.add(Invariant::Recovery, "an operation cannot be settled", case);
        }
        self.drained().await;
        self.watching.abort();
        self.world.look_after();
        self.world.terminate_all(DRAIN).await;
        let facts = self.facts().await?;
        for violation in check(&facts).violations() {
            findings.take(violation);
        }
        let running = Running {
            usage: lock(&self.watch.usage).clone(),
            logs: MEMBERS.into_iter().map(|member| (member, self.world.log(member))).collect(),
            misbehaved: lock(&self.world.misbehaved).clone(),
        };
        running.check(&self.plan.limits, &mut findings);
        let log = lock(&self.faults.log).clone();
        let samples = lock(&self.watch.samples).clone();
        let recoveries = Recovery::all(&log, &facts.told, &samples);
        if let Some(last) = recoveries.last() {
            last.check(&self.plan.limits, &mut findings);
        }
        let mut faults = BTreeMap::new();
        for entry in log.iter().filter(|entry| entry.class != "last") {
            *faults.entry(entry.class.clone()).or_default() += 1;
        }
        let usage = running.usage.iter();
        let report = Report {
            seed: self.plan.seed,
            seconds,
            operations: operations(&facts),
            faults,
            recoveries,
            rss_kib: usage.map(|(member, usage)| (member.to_string(), usage.rss_kib)).collect(),
            violations: findings.violations(),
            dir: None,
            again: self.plan.again.clone(),
        };
        self.put_away(report, &log).await
    }

    /// Commands until both processes have acknowledged one.
    async fn probe(&self) {
        let until = Instant::now() + self.plan.limits.first_ok * 2;
        for through in 0..2 {
            loop {
                let op = self.clients.intend(&format!("probe-{through}"), Kind::Append, None);
                let answer = self.clients.send(op, through).await;
                if matches!(answer, Outcome::Ok { .. }) || Instant::now() > until {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Waits until everything that is committed is recorded as relayed, or long enough.
    async fn drained(&self) {
        let until = Instant::now() + self.plan.limits.drained * 3 / 2;
        let mut connection = None;
        while Instant::now() < until {
            let sample = sample(&self.world, &self.history, &mut connection).await;
            let is_empty = sample.as_ref().is_some_and(|sample| sample.pending() == 0);
            lock(&self.watch.samples).extend(sample);
            if is_empty {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn facts(&self) -> Result<Facts, String> {
        let tables = Tables::read(&self.world.events_url()).await?;
        let (kafka, topic) = (self.world.infra.local.kafka().to_owned(), self.world.topic());
        let records = blocking(move || topic::read(&kafka, &topic, PARTITIONS)).await?;
        let told = Told::of(&self.history);
        Ok(Facts { told, tables, records, partitions: PARTITIONS })
    }

    /// Keeps the traces of a run that failed, removes those of one that did not.
    async fn put_away(self, mut report: Report, log: &[Entry]) -> Result<Report, String> {
        self.history.flush();
        let Stage { world, clients, faults, history, dir, .. } = self;
        let keeps = std::env::var_os(KEEP).is_some();
        if report.violations.is_empty() && !keeps {
            let _ = fs::remove_dir_all(&dir);
        } else {
            for name in ["kafka.log", "postgres.log"] {
                let _ = fs::copy(world.infra.local.logs().join(name), dir.join(name));
            }
            report.dir = Some(dir.clone());
            let write = |name: &str, text: serde_json::Result<String>| {
                let text = text.map_err(|error| error.to_string())?;
                fs::write(dir.join(name), text).map_err(|error| format!("{name}: {error}"))
            };
            write("faults.json", serde_json::to_string_pretty(log))?;
            write("report.json", serde_json::to_string_pretty(&report))?;
        }
        blocking(move || drop((world, clients, faults, history))).await;
        Ok(report)
    }
}

fn operations(facts: &Facts) -> BTreeMap<&'static str, usize> {
    let told = &facts.told;
    let count = |wanted: fn(&Outcome) -> bool| {
        told.attempts.iter().filter(|attempt| wanted(&attempt.outcome)).count()
    };
    BTreeMap::from([
        ("operations", told.operations.len()),
        ("requests", told.attempts.len()),
        ("reads", told.reads.len()),
        ("ok", count(|outcome| matches!(outcome, Outcome::Ok { replayed: false, .. }))),
        ("replayed", count(|outcome| matches!(outcome, Outcome::Ok { replayed: true, .. }))),
        ("conflicts", count(|o| matches!(o, Outcome::Fail { status: 412, .. }))),
        ("refused", count(|o| matches!(o, Outcome::Fail { status: 409 | 422, .. }))),
        ("unavailable", count(|o| matches!(o, Outcome::Fail { status: 0 | 503, .. }))),
        ("unknown", count(|outcome| matches!(outcome, Outcome::Info(_)))),
        ("events", facts.tables.events.len()),
        ("records", facts.records.len()),
    ])
}
