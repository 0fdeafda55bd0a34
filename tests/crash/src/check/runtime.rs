//! I12 and I14: processes, and how soon they come back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Findings, Invariant, Told};
use crate::faults::Entry;
use crate::history::{Micros, Outcome, micros};
use crate::watch::{Sample, Usage};
use crate::world::Member;

/// What is still well.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Resident memory of a process.
    pub rss_kib: u64,
    /// Open files of a process.
    pub files: usize,
    /// From the last heal to the first acknowledged command.
    pub first_ok: Duration,
    /// From the last heal until all that was committed by then is relayed.
    pub drained: Duration,
}

impl Default for Limits {
    /// Generous: the machine may be slow, and the processes are built without optimisation.
    fn default() -> Self {
        Limits {
            rss_kib: 300 << 10,
            files: 600,
            first_ok: Duration::from_secs(30),
            drained: Duration::from_secs(60),
        }
    }
}

/// What was seen of processes while they ran.
#[derive(Debug, Default)]
pub struct Running {
    /// The peak of each.
    pub usage: BTreeMap<Member, Usage>,
    /// What they wrote to their logs.
    pub logs: BTreeMap<Member, String>,
    /// Those that did not end as they should have.
    pub misbehaved: Vec<String>,
}

impl Running {
    /// I12.
    pub fn check(&self, limits: &Limits, findings: &mut Findings) {
        for (member, usage) in &self.usage {
            if usage.rss_kib > limits.rss_kib {
                let case = format!("{member}: {} KiB", usage.rss_kib);
                findings.add(Invariant::Processes, "too much memory", case);
            }
            if usage.files > limits.files {
                let case = format!("{member}: {} files", usage.files);
                findings.add(Invariant::Processes, "too many open files", case);
            }
        }
        for (member, log) in &self.logs {
            for line in log.lines().filter(|line| line.contains("panicked at")) {
                let case = format!("{member}: {line}");
                findings.add(Invariant::Processes, "a process panicked", case);
            }
        }
        for complaint in &self.misbehaved {
            findings.add(Invariant::Processes, "a process ended as it should not", complaint);
        }
    }
}

/// How soon everything was back after a heal.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// What had been on.
    pub faults: Vec<String>,
    /// When it was mended.
    pub healed: Micros,
    /// From then to the end of the first acknowledged command that was sent after it.
    pub first_ok_ms: Option<u64>,
    /// From then until all that was committed by then was recorded as relayed. None where the next
    /// fault came before.
    pub drained_ms: Option<u64>,
}

impl Recovery {
    /// After each heal of the log.
    #[must_use]
    pub fn all(log: &[Entry], told: &Told, samples: &[Sample]) -> Vec<Self> {
        let mut heals: BTreeMap<Micros, Vec<String>> = BTreeMap::new();
        for entry in log {
            heals.entry(entry.to).or_default().push(entry.fault.clone());
        }
        heals.into_iter().map(|(healed, faults)| after(healed, faults, told, samples)).collect()
    }

    /// I14, for the last one.
    pub fn check(&self, limits: &Limits, findings: &mut Findings) {
        let late = |ms: Option<u64>, limit: Duration| {
            ms.is_none_or(|ms| ms.saturating_mul(1_000) > micros(limit))
        };
        if late(self.first_ok_ms, limits.first_ok) {
            let case = format!("{:?} after {:?}", self.first_ok_ms, self.faults);
            findings.add(Invariant::Recovery, "no command was acknowledged in time", case);
        }
        if late(self.drained_ms, limits.drained) {
            let case = format!("{:?} after {:?}", self.drained_ms, self.faults);
            findings.add(Invariant::Recovery, "the backlog was not relayed in time", case);
        }
    }
}

fn after(healed: Micros, faults: Vec<String>, told: &Told, samples: &[Sample]) -> Recovery {
    let acknowledged = told.attempts.iter().filter(|attempt| {
        attempt.invoked >= healed && matches!(attempt.outcome, Outcome::Ok { .. })
    });
    let first = acknowledged.map(|attempt| attempt.ended).min();
    let mut since = samples.iter().skip_while(|sample| sample.at < healed);
    let drained = since.next().and_then(|first| {
        let mut done = std::iter::once(first).chain(since);
        done.find(|sample| first.is_relayed_in(sample))
    });
    let ms = |at: Micros| at.saturating_sub(healed) / 1_000;
    Recovery {
        faults,
        healed,
        first_ok_ms: first.map(ms),
        drained_ms: drained.map(|sample| ms(sample.at)),
    }
}
