//! I1 and I2: the event table against the history.

use std::collections::{HashMap, HashSet};

use super::{Facts, Findings, Invariant};
use crate::history::Outcome;
use crate::table::Event;

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    numbers(facts, findings);
    let by_token = tokens(facts, findings);
    acknowledged(facts, &by_token, findings);
    let refused = refused(facts);
    for (place, operation) in facts.told.operations.iter().enumerate() {
        let Some(event) = by_token.get(operation.token.as_str()) else { continue };
        if event.stream_id != operation.stream || event.event_type != operation.kind.event() {
            let case = format!("{operation:?} is {} of {}", event.event_type, event.stream_id);
            findings.add(Invariant::Kept, "an event is not what was asked for", case);
        }
        if refused[place] {
            let case = format!("{operation:?} at version {}", event.version);
            findings.add(Invariant::Kept, "a refused token is there", case);
        }
    }
    for (stream, place, version) in unread(facts) {
        let case = format!("{stream} was at {place}, later read at {version}");
        findings.add(Invariant::Order, "a read went back", case);
    }
}

fn numbers(facts: &Facts, findings: &mut Findings) {
    let tables = &facts.tables;
    for (stream, version, place) in &tables.bad_versions {
        let case = format!("{stream}: version {version} at place {place}");
        findings.add(Invariant::Versions, "versions do not run 1..n", case);
    }
    for (partition, position, place) in &tables.bad_positions {
        let case = format!("partition {partition}: position {position} at place {place}");
        findings.add(Invariant::Versions, "positions do not run 1..n", case);
    }
    for (command, events) in &tables.doubled_commands {
        let case = format!("command {command} has {events} events");
        findings.add(Invariant::Kept, "a command took effect twice", case);
    }
    for (partition, head) in &tables.heads {
        let count = tables.events.iter().filter(|event| event.partition == *partition).count();
        if i64::try_from(count) != Ok(*head) {
            let case = format!("partition {partition}: head {head}, {count} events");
            findings.add(Invariant::Versions, "a head is not the last position", case);
        }
    }
    for pair in tables.events.windows(2) {
        let [before, after] = pair else { continue };
        if before.partition == after.partition && before.recorded_at > after.recorded_at {
            let case = format!("partition {}, position {}", after.partition, after.position);
            findings.add(Invariant::Versions, "time went back with positions", case);
        }
    }
}

fn tokens<'a>(facts: &'a Facts, findings: &mut Findings) -> HashMap<String, &'a Event> {
    let wanted: HashSet<&str> =
        facts.told.operations.iter().map(|operation| operation.token.as_str()).collect();
    let mut by_token: HashMap<String, &Event> = HashMap::new();
    for event in &facts.tables.events {
        let at = format!("{} version {}", event.stream_id, event.version);
        let Some(token) = event.token() else {
            findings.add(Invariant::Kept, "an event is not readable", at);
            continue;
        };
        if !wanted.contains(token.as_str()) {
            findings.add(Invariant::Kept, "nobody asked for a token", format!("{token}: {at}"));
        }
        if let Some(other) = by_token.insert(token.clone(), event) {
            let case = format!("{token}: {at} and {} version {}", other.stream_id, other.version);
            findings.add(Invariant::Kept, "a token is there twice", case);
        }
    }
    by_token
}

fn acknowledged(facts: &Facts, by_token: &HashMap<String, &Event>, findings: &mut Findings) {
    for attempt in &facts.told.attempts {
        let Outcome::Ok { version, .. } = &attempt.outcome else { continue };
        let operation = &facts.told.operations[attempt.op];
        match by_token.get(operation.token.as_str()) {
            None => {
                let case = format!("{operation:?}: version {version} at {} µs", attempt.ended);
                findings.add(Invariant::Kept, "an acknowledged token is not there", case);
            }
            Some(event) if u64::try_from(event.version) != Ok(*version) => {
                let case = format!("{operation:?}: told {version}, stored {}", event.version);
                findings.add(Invariant::Versions, "a version is not the one that was told", case);
            }
            Some(_) => {}
        }
    }
}

/// Whether each operation was certainly without effect: it was refused for good, or all of its
/// requests were without effect.
fn refused(facts: &Facts) -> Vec<bool> {
    let count = facts.told.operations.len();
    let (mut failed, mut settled) = (vec![true; count], vec![false; count]);
    for attempt in &facts.told.attempts {
        let is_fail = matches!(attempt.outcome, Outcome::Fail { .. });
        failed[attempt.op] &= is_fail;
        settled[attempt.op] |= is_fail && attempt.outcome.settles();
    }
    failed.into_iter().zip(settled).map(|(failed, settled)| failed || settled).collect()
}

/// Reads that show less than what was acknowledged before they began.
fn unread(facts: &Facts) -> Vec<(String, u64, u64)> {
    let mut told: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for attempt in &facts.told.attempts {
        if let Outcome::Ok { version, .. } = &attempt.outcome {
            let stream = facts.told.operations[attempt.op].stream.as_str();
            told.entry(stream).or_default().push((attempt.ended, *version));
        }
    }
    let mut found = Vec::new();
    for read in &facts.told.reads {
        let before = told.get(read.stream.as_str()).into_iter().flatten();
        let known = before.filter(|(ended, _)| *ended < read.invoked).map(|(_, version)| *version);
        let known = known.max().unwrap_or(0);
        if read.version < known {
            found.push((read.stream.clone(), known, read.version));
        }
    }
    found
}
