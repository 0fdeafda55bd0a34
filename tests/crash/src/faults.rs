//! What goes wrong, and when: drawn by seed, one or two at a time, mended for at least as long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldstream_testkit::proxy::{Ending, Mode, Proxy, Way};
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::history::{History, Micros};
use crate::world::{Member, Role, World, blocking, lock};

/// SIGTERM to the end: what is promised.
const DRAIN: Duration = Duration::from_secs(15);

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// From a member to Postgres.
    Database(Member),
    /// From clients to the n-th `commands`.
    Clients(usize),
    /// From relays to Kafka.
    Kafka,
}

/// What happens to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Connections are closed, then new ones pass.
    Cut,
    /// Connections are reset every 200 ms.
    ResetStorm,
    /// No connection at all.
    Down,
    /// Bytes come late.
    Delay,
    /// Bytes come slowly.
    Slow,
    /// Bytes come in small pieces.
    Slice,
    /// Nothing passes until it is mended.
    BlackHole,
    /// Questions arrive, answers are lost.
    LostAnswers,
    /// Questions are lost.
    LostQuestions,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9, started again later.
    Kill(Member),
    /// SIGSTOP and SIGCONT.
    Pause(Member),
    /// SIGTERM, started again later.
    Terminate(Member),
    /// kill -9 of Kafka.
    KillKafka,
    /// Kafka is stopped in order and started again.
    StopKafka,
    /// SIGSTOP and SIGCONT of Kafka.
    PauseKafka,
    /// kill -9 of Postgres.
    KillPostgres,
    /// Fast shutdown of Postgres.
    StopPostgres,
    /// Immediate shutdown of Postgres.
    AbortPostgres,
    /// Something about a link.
    Link(Edge, Trouble),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Kill(member) => write!(f, "kill -9 {member}"),
            Fault::Pause(member) => write!(f, "pause {member}"),
            Fault::Terminate(member) => write!(f, "terminate {member}"),
            Fault::KillKafka => f.write_str("kill -9 kafka"),
            Fault::StopKafka => f.write_str("restart kafka"),
            Fault::PauseKafka => f.write_str("pause kafka"),
            Fault::KillPostgres => f.write_str("kill -9 postgres"),
            Fault::StopPostgres => f.write_str("restart postgres (fast)"),
            Fault::AbortPostgres => f.write_str("restart postgres (immediate)"),
            Fault::Link(edge, trouble) => {
                match edge {
                    Edge::Database(member) => write!(f, "{member} → postgres: ")?,
                    Edge::Clients(number) => write!(f, "clients → commands-{}: ", number + 1)?,
                    Edge::Kafka => f.write_str("relays → kafka: ")?,
                }
                write!(f, "{trouble:?}")
            }
        }
    }
}

impl Fault {
    /// Two faults with the same place are not on at once.
    fn place(self) -> &'static str {
        match self {
            Fault::Kill(member) | Fault::Pause(member) | Fault::Terminate(member) => {
                match member.role {
                    Role::Commands => "commands",
                    Role::Relay => "relay",
                }
            }
            Fault::KillKafka | Fault::StopKafka | Fault::PauseKafka => "kafka",
            Fault::KillPostgres | Fault::StopPostgres | Fault::AbortPostgres => "postgres",
            Fault::Link(Edge::Database(_), _) => "database links",
            Fault::Link(Edge::Clients(_), _) => "client links",
            Fault::Link(Edge::Kafka, _) => "kafka link",
        }
    }

    /// The short name under which faults are counted.
    #[must_use]
    pub fn class(self) -> String {
        match self {
            Fault::Kill(member) => format!("kill {}", role(member)),
            Fault::Pause(member) => format!("pause {}", role(member)),
            Fault::Terminate(member) => format!("terminate {}", role(member)),
            Fault::Link(_, trouble) => format!("link {trouble:?}"),
            Fault::KillKafka
            | Fault::StopKafka
            | Fault::PauseKafka
            | Fault::KillPostgres
            | Fault::StopPostgres
            | Fault::AbortPostgres => self.to_string(),
        }
    }

    /// How long it is on.
    fn lasts(self, dice: &mut Dice) -> Duration {
        let s = Duration::from_secs;
        match self {
            // Past its lease of ten seconds: another takes over, and it wakes as a zombie.
            Fault::Pause(Member { role: Role::Relay, .. }) => dice.between(s(12), s(14)),
            Fault::Pause(_) | Fault::PauseKafka => dice.between(s(3), s(8)),
            Fault::Kill(_) | Fault::Terminate(_) => dice.between(Duration::ZERO, s(4)),
            Fault::KillKafka | Fault::StopKafka => dice.between(s(1), s(4)),
            Fault::KillPostgres | Fault::StopPostgres | Fault::AbortPostgres => {
                dice.between(Duration::ZERO, s(3))
            }
            Fault::Link(_, Trouble::Cut) => dice.between(s(1), s(2)),
            Fault::Link(_, _) => dice.between(s(3), s(7)),
        }
    }
}

fn role(member: Member) -> &'static str {
    match member.role {
        Role::Commands => "commands",
        Role::Relay => "relay",
    }
}

/// What went wrong when.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// In words.
    pub fault: String,
    /// Its kind.
    pub class: String,
    /// When it began.
    pub from: Micros,
    /// When it was mended.
    pub to: Micros,
}

/// All kinds of faults, each about a target that the dice choose.
#[must_use]
pub fn deck(dice: &mut Dice) -> Vec<Fault> {
    use Trouble::{
        BlackHole, Cut, Delay, Down, LostAnswers, LostQuestions, ResetStorm, Slice, Slow,
    };
    let mut n = || dice.below(2);
    let commands_db = |n: usize| Edge::Database(Member::commands(n));
    let relay_db = |n: usize| Edge::Database(Member::relay(n));
    let mut deck = vec![
        Fault::Kill(Member::commands(n())),
        Fault::Kill(Member::relay(n())),
        Fault::Pause(Member::relay(n())),
        Fault::Pause(Member::commands(n())),
        Fault::Terminate(Member::commands(n())),
        Fault::Terminate(Member::relay(n())),
        Fault::KillKafka,
        Fault::StopKafka,
        Fault::PauseKafka,
        Fault::KillPostgres,
        Fault::StopPostgres,
        Fault::AbortPostgres,
    ];
    for trouble in [Cut, ResetStorm, Delay, BlackHole, LostAnswers, LostQuestions] {
        deck.push(Fault::Link(commands_db(n()), trouble));
    }
    for trouble in [ResetStorm, Delay, BlackHole, Down, LostAnswers] {
        deck.push(Fault::Link(relay_db(n()), trouble));
    }
    for trouble in [Cut, Slice, BlackHole, LostAnswers, ResetStorm] {
        deck.push(Fault::Link(Edge::Clients(n()), trouble));
    }
    for trouble in [Cut, ResetStorm, Delay, Slow, BlackHole, LostAnswers, Down] {
        deck.push(Fault::Link(Edge::Kafka, trouble));
    }
    dice.shuffle(&mut deck);
    deck
}

/// The faults of a run, with what is on now.
#[derive(Debug)]
pub struct Faults {
    world: Arc<World>,
    history: Arc<History>,
    /// What went wrong when.
    pub log: Mutex<Vec<Entry>>,
}

impl Faults {
    /// No faults yet.
    #[must_use]
    pub fn new(world: Arc<World>, history: Arc<History>) -> Self {
        Faults { world, history, log: Mutex::default() }
    }

    /// Draws faults until that time; all are mended when it returns.
    ///
    /// # Errors
    /// Kafka or Postgres do not come up again.
    pub async fn drive(&self, seed: u64, until: Instant) -> Result<(), String> {
        let mut dice = Dice::new(seed, "faults");
        let mut cards = Vec::new();
        loop {
            let mut round: Vec<Fault> = Vec::new();
            let wanted = 1 + usize::from(dice.happens(0.5));
            while round.len() < wanted {
                if cards.is_empty() {
                    cards = deck(&mut dice);
                }
                // The first card of another place.
                let free = |card: &Fault| round.iter().all(|one| one.place() != card.place());
                match cards.iter().position(free) {
                    Some(place) => round.push(cards.remove(place)),
                    None => break,
                }
            }
            let on = round.iter().map(|fault| fault.lasts(&mut dice)).max().unwrap_or_default();
            let left = until.saturating_duration_since(Instant::now());
            if left < on {
                return Ok(());
            }
            let began = Instant::now();
            self.round(&round, on).await?;
            let off = began.elapsed().max(Duration::from_secs(3));
            sleep(off.min(until.saturating_duration_since(Instant::now()))).await;
            self.world.look_after();
        }
    }

    /// Has these faults on for so long, then mends them.
    ///
    /// # Errors
    /// Kafka or Postgres do not come up again.
    pub async fn round(&self, faults: &[Fault], on: Duration) -> Result<(), String> {
        let from = self.history.now();
        for fault in faults {
            self.begin(*fault).await;
        }
        let end = Instant::now() + on;
        loop {
            self.keep_up(faults);
            if Instant::now() >= end {
                break;
            }
            sleep(Duration::from_millis(200).min(end - Instant::now())).await;
        }
        self.mend(faults).await?;
        let to = self.history.now();
        let mut log = lock(&self.log);
        log.extend(faults.iter().map(|fault| Entry {
            fault: fault.to_string(),
            class: fault.class(),
            from,
            to,
        }));
        Ok(())
    }

    fn link(&self, edge: Edge) -> &Proxy {
        match edge {
            Edge::Database(member) => self.world.database_link(member),
            Edge::Clients(number) => self.world.client_link(number),
            Edge::Kafka => &self.world.kafka_link,
        }
    }

    /// Has a fault begin.
    pub async fn begin(&self, fault: Fault) {
        let world = &self.world;
        let infra = Arc::clone(&world.infra);
        match fault {
            Fault::Kill(member) => world.kill(member).await,
            Fault::Pause(member) => world.signal(member, Signal::SIGSTOP),
            Fault::Terminate(member) => world.terminate(member, DRAIN).await,
            Fault::KillKafka => blocking(move || infra.local.kill_kafka()).await,
            Fault::StopKafka => blocking(move || infra.local.stop_kafka()).await,
            Fault::PauseKafka => world.signal_kafka(Signal::SIGSTOP),
            Fault::KillPostgres => blocking(move || infra.local.kill_postgres()).await,
            Fault::StopPostgres => blocking(move || infra.local.stop_postgres()).await,
            Fault::AbortPostgres => world.abort_postgres().await,
            Fault::Link(edge, trouble) => begin_trouble(self.link(edge), trouble),
        }
    }

    /// Mends everything.
    ///
    /// # Errors
    /// Kafka or Postgres do not come up again.
    pub async fn mend(&self, faults: &[Fault]) -> Result<(), String> {
        for fault in faults {
            if let Fault::Link(edge, Trouble::LostAnswers | Trouble::LostQuestions) = fault {
                // TCP delivers the bytes of a connection all or not: one that lost some must end.
                self.link(*edge).down();
            }
        }
        self.world.heal().await
    }

    /// Does again what goes wrong again and again.
    fn keep_up(&self, faults: &[Fault]) {
        for fault in faults {
            if let Fault::Link(edge, Trouble::ResetStorm) = fault {
                self.link(*edge).cut(Ending::Reset);
            }
        }
    }
}

fn begin_trouble(link: &Proxy, trouble: Trouble) {
    let ms = Duration::from_millis;
    match trouble {
        Trouble::Cut => link.cut(Ending::Close),
        Trouble::ResetStorm => link.cut(Ending::Reset),
        Trouble::Down => link.down(),
        Trouble::Delay => link.set(Mode::Delay { latency: ms(150), jitter: ms(250) }),
        Trouble::Slow => link.set(Mode::Rate { bytes_per_second: 10_000 }),
        Trouble::Slice => link.set(Mode::Slice { bytes: 7 }),
        Trouble::BlackHole => link.set(Mode::Hold),
        Trouble::LostAnswers => link.set_way(Way::ToClient, Mode::Drop),
        Trouble::LostQuestions => link.set_way(Way::ToServer, Mode::Drop),
    }
}
