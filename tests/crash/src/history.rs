//! What clients asked and what they were told, in memory and in a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::world::lock;

/// Microseconds since the beginning of the run.
pub type Micros = u64;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One more token.
    Append,
    /// More room.
    Extend,
}

impl Kind {
    /// The command's name in routes.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Kind::Append => "append-token",
            Kind::Extend => "extend-ledger",
        }
    }
    /// The name of the event that it leads to.
    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Kind::Append => "ledger.ledgers.TokenAppended",
            Kind::Extend => "ledger.ledgers.LedgerExtended",
        }
    }
}

/// One intention with its key: it has one effect or none, however often it is sent.
#[derive(Debug, Clone, Serialize)]
pub struct Operation {
    /// The idempotency key. Two operations share one where a client re-used it with another body.
    pub key: String,
    /// The ledger.
    pub stream: String,
    /// What it wants.
    pub kind: Kind,
    /// No two operations have the same.
    pub token: String,
    /// The version it must find; 0 is a ledger without events.
    pub if_match: Option<u64>,
}

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted.
    Ok {
        /// The version it made.
        version: u64,
        /// The status.
        status: u16,
        /// The body.
        body: String,
        /// Whether it was marked as a replay.
        replayed: bool,
    },
    /// Certainly without effect of this request.
    Fail {
        /// The status.
        status: u16,
        /// The problem's code.
        code: String,
        /// The version that the answer names.
        current: Option<u64>,
        /// Whether it was marked as a replay.
        replayed: bool,
    },
    /// Nobody knows.
    Info(String),
}

impl Outcome {
    /// Whether it is a verdict of the rules, which a key keeps.
    #[must_use]
    pub fn is_verdict(&self) -> bool {
        match self {
            Outcome::Ok { .. } => true,
            Outcome::Fail { code, .. } => is_refusal(code),
            Outcome::Info(_) => false,
        }
    }

    /// Whether it says what became of its operation for good, of earlier requests of unknown
    /// outcome too: a verdict does, and a refusal that would have been a replay if an earlier
    /// request had taken effect, and that no later one can turn. Versions only grow, so a conflict
    /// stays one.
    #[must_use]
    pub fn settles(&self) -> bool {
        let Outcome::Fail { status, code, .. } = self else { return self.is_verdict() };
        is_refusal(code) || *status == 412 || code == "idempotency-key-reused"
    }
}

/// Whether a code is that of one of the ledger's own rules.
#[must_use]
pub fn is_refusal(code: &str) -> bool {
    matches!(code, "ledger-full" | "ledger-has-room")
}

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// The place of its operation.
    pub op: usize,
    /// Which `commands` it went to.
    pub through: usize,
    /// When it was sent.
    pub invoked: Micros,
    /// When its outcome was known.
    pub ended: Micros,
    /// What came of it.
    pub outcome: Outcome,
}

/// A read of a ledger's version.
#[derive(Debug, Clone, Serialize)]
pub struct Read {
    /// The ledger.
    pub stream: String,
    /// Which `commands` it went to.
    pub through: usize,
    /// When it was sent.
    pub invoked: Micros,
    /// When its answer was there.
    pub ended: Micros,
    /// 0 is a ledger without events.
    pub version: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Operation { op: usize, operation: &'a Operation },
    Attempt(&'a Attempt),
    Read(&'a Read),
}

/// Everything that was asked and told.
#[derive(Debug)]
pub struct History {
    began: Instant,
    /// What was wanted.
    pub operations: Mutex<Vec<Operation>>,
    /// What was sent.
    pub attempts: Mutex<Vec<Attempt>>,
    /// What was read.
    pub reads: Mutex<Vec<Read>>,
    file: Mutex<BufWriter<File>>,
}

impl History {
    /// A history that is also written to this file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(file: &Path) -> std::io::Result<Self> {
        Ok(History {
            began: Instant::now(),
            operations: Mutex::default(),
            attempts: Mutex::default(),
            reads: Mutex::default(),
            file: Mutex::new(BufWriter::new(File::create(file)?)),
        })
    }

    /// The time of the run.
    #[must_use]
    pub fn now(&self) -> Micros {
        micros(self.began.elapsed())
    }

    /// Takes an operation in and answers its place.
    pub fn intend(&self, operation: Operation) -> usize {
        let mut operations = lock(&self.operations);
        let op = operations.len();
        self.write(&Line::Operation { op, operation: &operation });
        operations.push(operation);
        op
    }

    /// Takes in a request that is over.
    pub fn attempted(&self, attempt: Attempt) {
        self.write(&Line::Attempt(&attempt));
        lock(&self.attempts).push(attempt);
    }

    /// Takes in a read.
    pub fn read(&self, read: Read) {
        self.write(&Line::Read(&read));
        lock(&self.reads).push(read);
    }

    /// An operation.
    #[must_use]
    pub fn operation(&self, op: usize) -> Operation {
        lock(&self.operations)[op].clone()
    }

    /// The operations of which nobody knows whether they took effect.
    #[must_use]
    pub fn unresolved(&self) -> Vec<usize> {
        let count = lock(&self.operations).len();
        let (mut unknown, mut known) = (vec![false; count], vec![false; count]);
        for attempt in lock(&self.attempts).iter() {
            match &attempt.outcome {
                Outcome::Info(_) => unknown[attempt.op] = true,
                outcome => known[attempt.op] |= outcome.settles(),
            }
        }
        (0..count).filter(|op| unknown[*op] && !known[*op]).collect()
    }

    /// Writes everything to the file.
    pub fn flush(&self) {
        let _ = lock(&self.file).flush();
    }

    fn write(&self, line: &Line<'_>) {
        let mut file = lock(&self.file);
        // A disk that is full shows elsewhere.
        if serde_json::to_writer(&mut *file, line).is_ok() {
            let _ = file.write_all(b"\n");
        }
    }
}

/// In microseconds.
#[must_use]
pub fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
