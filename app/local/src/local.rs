//! One pair of Kafka and Postgres over one data directory.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::child::Process;
use crate::kafka::{self, Kafka};
use crate::place::{Place, State};
use crate::ports::{free_port_except, is_free};
use crate::postgres::{self, USER};
use crate::{LocalError, Progress, abandoned, kafka_jars};

/// What to start and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data, password and logs; created if it is not there, kept between runs.
    pub data_dir: PathBuf,
    /// A given port, or none for a free one.
    pub postgres_port: Option<u16>,
    /// A given port, or none for a free one.
    pub kafka_port: Option<u16>,
    /// A given port of Kafka's controller, or none for a free one.
    pub controller_port: Option<u16>,
    /// Whether to start Postgres.
    pub postgres: bool,
    /// Whether to start Kafka.
    pub kafka: bool,
    /// Further ways to Kafka that lead through something else.
    pub kafka_detours: Vec<Detour>,
}

/// A further listener of Kafka whose clients are told to come by another port: that of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detour {
    /// The port that Kafka listens on for it; the proxy's target.
    pub listen: u16,
    /// The port that clients are told; the proxy's own.
    pub advertise: u16,
}

impl Options {
    /// Both, on free ports.
    #[must_use]
    pub fn in_dir(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            postgres_port: None,
            kafka_port: None,
            controller_port: None,
            postgres: true,
            kafka: true,
            kafka_detours: Vec::new(),
        }
    }
}

/// Running Kafka and Postgres. Dropping it stops both; they also die with this process.
#[derive(Debug)]
pub struct Local {
    place: Place,
    state: State,
    bootstrap: String,
    broker: Option<Kafka>,
    kafka: Mutex<Option<Process>>,
    postgres: Mutex<Option<Process>>,
    /// Data that nobody needs after the end: children are killed, directories removed.
    pub(crate) discard: bool,
}

impl Local {
    /// Starts what `options` ask for; both answer when this returns. What an earlier run left
    /// running over the same data directory is ended first.
    ///
    /// # Errors
    /// Something is missing on this machine, a port is taken, or a child does not come up.
    pub fn start(options: Options, progress: &mut dyn FnMut(Progress)) -> Result<Self, LocalError> {
        let began = Instant::now();
        if options.postgres {
            postgres::newest_binaries()?;
        }
        if options.kafka {
            kafka::java()?;
        }
        let jars = options.kafka.then(|| kafka_jars(progress)).transpose()?;
        abandoned::clear();
        let place = Place::open(&options.data_dir)?;
        kafka::end_earlier(&place.work)?;
        postgres::end_earlier(&place.work)?;
        let state = prepare_state(&place, &options)?;
        let mut local = Self {
            bootstrap: format!("127.0.0.1:{}", state.kafka_port),
            broker: None,
            kafka: Mutex::new(None),
            postgres: Mutex::new(None),
            discard: false,
            place,
            state,
        };
        // The broker takes longest: Postgres comes up beside it.
        if let Some(jars) = jars {
            let formatting = || progress(Progress::FormattingKafka);
            let broker = Kafka::prepare(
                &local.place,
                &local.state,
                &jars,
                &options.kafka_detours,
                formatting,
            )?;
            progress(Progress::StartingKafka);
            *lock(&local.kafka) = Some(broker.start(&local.place)?);
            local.broker = Some(broker);
        }
        if options.postgres {
            let creating = || progress(Progress::CreatingPostgres);
            postgres::prepare(&local.place, &local.state, creating)?;
            progress(Progress::StartingPostgres);
            local.start_postgres()?;
            let (port, after) = (local.state.postgres_port, began.elapsed());
            progress(Progress::PostgresReady { port, after });
        }
        if options.kafka {
            local.start_kafka()?;
            let (port, after) = (local.state.kafka_port, began.elapsed());
            progress(Progress::KafkaReady { port, after });
        }
        Ok(local)
    }

    /// Bootstrap servers: `127.0.0.1:<port>`.
    #[must_use]
    pub fn kafka(&self) -> &str {
        &self.bootstrap
    }

    /// `postgres://postgres:<password>@127.0.0.1:<port>/<database>`, as a superuser.
    #[must_use]
    pub fn postgres_url(&self, database: &str) -> String {
        let State { password, postgres_port, .. } = &self.state;
        format!("postgres://{USER}:{password}@127.0.0.1:{postgres_port}/{database}")
    }

    /// The port of Postgres.
    #[must_use]
    pub fn postgres_port(&self) -> u16 {
        self.state.postgres_port
    }

    /// The port of Kafka.
    #[must_use]
    pub fn kafka_port(&self) -> u16 {
        self.state.kafka_port
    }

    /// Kafka's process, while it runs.
    #[must_use]
    pub fn kafka_pid(&self) -> Option<u32> {
        running(&mut lock(&self.kafka)).map(|process| process.pid())
    }

    /// Postgres' first process, while it runs.
    #[must_use]
    pub fn postgres_pid(&self) -> Option<u32> {
        running(&mut lock(&self.postgres)).map(|process| process.pid())
    }

    /// The directory that holds the logs, `kafka.log` and `postgres.log`.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.place.data_dir.join("logs")
    }

    /// Starts Kafka if it does not run, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up, or its port was taken meanwhile.
    pub fn start_kafka(&self) -> Result<(), LocalError> {
        let Some(broker) = &self.broker else { return Ok(()) };
        let mut kafka = lock(&self.kafka);
        if running(&mut kafka).is_none() {
            *kafka = Some(broker.start(&self.place)?);
        }
        kafka.as_mut().map_or(Ok(()), |process| broker.wait_ready(process))
    }

    /// Stops Kafka in order.
    pub fn stop_kafka(&self) {
        if let Some(mut process) = lock(&self.kafka).take() {
            kafka::stop(&mut process);
        }
    }

    /// Ends Kafka at once, as a crash would.
    pub fn kill_kafka(&self) {
        if let Some(mut process) = lock(&self.kafka).take() {
            process.kill();
        }
    }

    /// Stops Kafka in order and starts it again on the same port.
    ///
    /// # Errors
    /// As [`Self::start_kafka`].
    pub fn restart_kafka(&self) -> Result<(), LocalError> {
        self.stop_kafka();
        self.start_kafka()
    }

    /// Starts Postgres if it does not run, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up, or its port was taken meanwhile.
    pub fn start_postgres(&self) -> Result<(), LocalError> {
        let mut postgres = lock(&self.postgres);
        if running(&mut postgres).is_none() {
            *postgres = Some(postgres::start(&self.place, self.state.postgres_port)?);
        }
        Ok(())
    }

    /// Stops Postgres in order (its fast shutdown).
    pub fn stop_postgres(&self) {
        if let Some(mut process) = lock(&self.postgres).take() {
            postgres::stop(&mut process);
        }
    }

    /// Ends Postgres at once, as a crash would.
    pub fn kill_postgres(&self) {
        if let Some(mut process) = lock(&self.postgres).take() {
            postgres::kill(&self.place, &mut process);
        }
    }

    /// Stops Postgres in order and starts it again on the same port.
    ///
    /// # Errors
    /// As [`Self::start_postgres`].
    pub fn restart_postgres(&self) -> Result<(), LocalError> {
        self.stop_postgres();
        self.start_postgres()
    }

    /// Stops both; data stay (unless it is ephemeral).
    pub fn stop(&self) {
        if self.discard {
            // Also runs while the process exits, when a thread is better not started.
            self.kill_kafka();
            self.kill_postgres();
            self.place.remove();
        } else {
            thread::scope(|scope| {
                scope.spawn(|| self.stop_kafka());
                self.stop_postgres();
            });
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The lock of a child; a panic elsewhere leaves the child as it is, so it may go on.
fn lock(process: &Mutex<Option<Process>>) -> MutexGuard<'_, Option<Process>> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

fn running(process: &mut Option<Process>) -> Option<&Process> {
    let process = process.as_mut()?;
    process.is_running().then_some(process)
}

/// Loads or makes the state, and settles the ports. Data in the children's directory that belong
/// to a data directory that was removed meanwhile are removed too.
fn prepare_state(place: &Place, options: &Options) -> Result<State, LocalError> {
    let saved = State::load(place)?;
    let id_file = place.work.join("id");
    let fits = |state: &State| fs::read_to_string(&id_file).is_ok_and(|id| id == state.id);
    let mut state = match saved {
        Some(state) if fits(&state) => state,
        saved => {
            for name in ["postgres", "postgres.new", "kafka", "kafka.formatted"] {
                let path = place.work.join(name);
                if path.is_file() {
                    fs::remove_file(&path).map_err(LocalError::io("cannot remove", &path))?;
                } else if path.exists() && !id_file.exists() {
                    let reason = "it was not made by Foldstream".to_owned();
                    return Err(LocalError::Unsafe { path, reason });
                } else if path.exists() {
                    fs::remove_dir_all(&path).map_err(LocalError::io("cannot remove", &path))?;
                }
            }
            let state = saved.unwrap_or_else(State::new);
            state.save(place)?;
            fs::write(&id_file, &state.id).map_err(LocalError::io("cannot write", &id_file))?;
            state
        }
    };
    let mut taken = Vec::new();
    let mut settle = |given: Option<u16>, last: u16, wanted: bool, purpose: &'static str| {
        let port = match given {
            Some(port) if wanted && !is_free(port) => {
                return Err(LocalError::PortTaken { port, purpose });
            }
            Some(port) => port,
            None if last != 0 && !taken.contains(&last) && is_free(last) => last,
            None => free_port_except(&taken),
        };
        taken.push(port);
        Ok(port)
    };
    state.postgres_port =
        settle(options.postgres_port, state.postgres_port, options.postgres, "Postgres")?;
    state.kafka_port = settle(options.kafka_port, state.kafka_port, options.kafka, "Kafka")?;
    let last = state.controller_port;
    state.controller_port =
        settle(options.controller_port, last, options.kafka, "Kafka's controller")?;
    state.save(place)?;
    Ok(state)
}
