//! The invariants of `docs/guarantees.md`, checked with code that shares nothing with what it
//! checks. A violation is a value with its evidence.

mod clients;
mod events;
mod records;
mod runtime;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::history::{Attempt, History, Operation, Read};
use crate::table::Tables;
use crate::topic::Record;
use crate::world::lock;

pub use runtime::{Limits, Recovery, Running};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Invariant {
    /// I1: what was acknowledged is there once, what was refused is not, nothing else is.
    Kept,
    /// I2: versions and positions run 1..n; a version that was answered is the stored one.
    Versions,
    /// I3: the topic holds the table: first occurrences in order, repeats byte by byte.
    Topic,
    /// I4: a key has one partition; headers are complete and true.
    Headers,
    /// I5: what clients were told fits into one order: versions, conflicts, refusals, reads.
    Order,
    /// I10: one key, one effect, one answer.
    Keys,
    /// I12: processes stay within bounds, do not panic, and end as they should.
    Processes,
    /// I14: after a heal everything comes back by itself, soon.
    Recovery,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Invariant::Kept => "I1 kept",
            Invariant::Versions => "I2 versions",
            Invariant::Topic => "I3 topic",
            Invariant::Headers => "I4 headers",
            Invariant::Order => "I5 order",
            Invariant::Keys => "I10 keys",
            Invariant::Processes => "I12 processes",
            Invariant::Recovery => "I14 recovery",
        })
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// In what way.
    pub rule: &'static str,
    /// How often.
    pub count: usize,
    /// The first cases.
    pub evidence: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({} times)", self.invariant, self.rule, self.count)?;
        self.evidence.iter().try_for_each(|case| write!(f, "\n    {case}"))
    }
}

/// So many cases of a violation are shown.
const SHOWN: usize = 8;

/// Collects violations.
#[derive(Debug, Default)]
pub struct Findings(BTreeMap<(Invariant, &'static str), Violation>);

impl Findings {
    /// Notes a case.
    pub fn add(&mut self, invariant: Invariant, rule: &'static str, case: impl fmt::Display) {
        let violation = self.0.entry((invariant, rule)).or_insert_with(|| Violation {
            invariant,
            rule,
            count: 0,
            evidence: Vec::new(),
        });
        violation.count += 1;
        if violation.evidence.len() < SHOWN {
            violation.evidence.push(case.to_string());
        }
    }

    /// Takes in what others found.
    pub fn take(&mut self, violation: Violation) {
        self.0.insert((violation.invariant, violation.rule), violation);
    }

    /// All of them.
    #[must_use]
    pub fn violations(self) -> Vec<Violation> {
        self.0.into_values().collect()
    }
}

/// What clients saw.
#[derive(Debug)]
pub struct Told {
    /// What was wanted.
    pub operations: Vec<Operation>,
    /// What was sent, in the order of its end.
    pub attempts: Vec<Attempt>,
    /// What was read.
    pub reads: Vec<Read>,
}

impl Told {
    /// Of a history that is over.
    #[must_use]
    pub fn of(history: &History) -> Self {
        Told {
            operations: lock(&history.operations).clone(),
            attempts: lock(&history.attempts).clone(),
            reads: lock(&history.reads).clone(),
        }
    }
}

/// Everything that is compared.
#[derive(Debug)]
pub struct Facts {
    /// What clients saw.
    pub told: Told,
    /// What the database holds.
    pub tables: Tables,
    /// What the topic holds.
    pub records: Vec<Record>,
    /// How many partitions the topic has.
    pub partitions: i32,
}

/// Checks everything that is in tables, topic and history.
#[must_use]
pub fn check(facts: &Facts) -> Findings {
    let mut findings = Findings::default();
    events::check(facts, &mut findings);
    records::check(facts, &mut findings);
    clients::check(facts, &mut findings);
    findings
}
