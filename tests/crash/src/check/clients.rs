//! I5 and I10: whether what clients were told fits into one order of each ledger, and whether a
//! key had one effect and one answer.

use std::collections::{BTreeSet, HashMap};

use super::{Facts, Findings, Invariant};
use crate::history::{Attempt, Kind, Micros, Operation, Outcome, is_refusal};
use crate::ledger::ROOM;

pub(super) fn check(facts: &Facts, findings: &mut Findings) {
    let effects = Effects::of(facts);
    let ledgers = ledgers(facts, &effects);
    for (stream, ledger) in &ledgers {
        real_time(stream, ledger, findings);
    }
    for attempt in &facts.told.attempts {
        let operation = &facts.told.operations[attempt.op];
        let first = effects.invoked[attempt.op];
        match (&attempt.outcome, operation.if_match) {
            (Outcome::Ok { version, .. }, Some(stated)) if *version != stated + 1 => {
                let case = format!("{operation:?} made version {version}");
                findings.add(Invariant::Order, "a write did not build on its If-Match", case);
            }
            (Outcome::Fail { code, current, .. }, stated) => {
                let window = ledgers
                    .get(operation.stream.as_str())
                    .map_or((0, 0), |ledger| ledger.window(first, attempt.ended));
                let refusal = Refused { operation, attempt, code, current: *current, stated };
                refusal.check(ledgers.get(operation.stream.as_str()), window, findings);
            }
            (Outcome::Info(reason), _) if reason.starts_with("500") => {
                let case = format!("{operation:?}: {reason}");
                findings.add(Invariant::Processes, "an internal error was answered", case);
            }
            (Outcome::Ok { .. } | Outcome::Info(_), _) => {}
        }
    }
    keys(facts, findings);
}

/// When operations were first sent and first known to have taken effect.
struct Effects {
    invoked: Vec<Micros>,
    completed: Vec<Option<Micros>>,
}

impl Effects {
    fn of(facts: &Facts) -> Self {
        let count = facts.told.operations.len();
        let mut invoked = vec![Micros::MAX; count];
        let mut completed: Vec<Option<Micros>> = vec![None; count];
        for attempt in &facts.told.attempts {
            let sent = &mut invoked[attempt.op];
            *sent = (*sent).min(attempt.invoked);
            if matches!(attempt.outcome, Outcome::Ok { .. }) {
                let done = &mut completed[attempt.op];
                *done = Some(done.map_or(attempt.ended, |before| before.min(attempt.ended)));
            }
        }
        Effects { invoked, completed }
    }
}

/// The events of a ledger in their order, each with what clients know of it.
#[derive(Default)]
struct Ledger {
    /// For version n at place n − 1.
    events: Vec<Written>,
}

struct Written {
    kind: Kind,
    token: String,
    invoked: Micros,
    completed: Option<Micros>,
}

impl Ledger {
    /// The least version that a request may have met, which began and ended then, and the
    /// greatest.
    fn window(&self, began: Micros, ended: Micros) -> (usize, usize) {
        let before = |one: &Written| one.completed.is_some_and(|completed| completed < began);
        let least = self.events.iter().rposition(before).map_or(0, |place| place + 1);
        let by_then = |one: &Written| one.invoked < ended;
        let most = self.events.iter().rposition(by_then).map_or(0, |place| place + 1);
        (least, most.max(least))
    }

    fn is_full_at(&self, version: usize) -> bool {
        let (mut tokens, mut room) = (0, ROOM);
        for event in &self.events[..version.min(self.events.len())] {
            match event.kind {
                Kind::Append => tokens += 1,
                Kind::Extend => room += ROOM,
            }
        }
        tokens >= room
    }
}

fn ledgers<'a>(facts: &'a Facts, effects: &Effects) -> HashMap<&'a str, Ledger> {
    let places: HashMap<&str, usize> = (facts.told.operations.iter().enumerate())
        .map(|(op, one)| (one.token.as_str(), op))
        .collect();
    let mut events: Vec<_> = facts.tables.events.iter().collect();
    events.sort_by(|a, b| (&a.stream_id, a.version).cmp(&(&b.stream_id, b.version)));
    let mut ledgers: HashMap<&str, Ledger> = HashMap::new();
    for event in events {
        let token = event.token().unwrap_or_default();
        let op = places.get(token.as_str()).copied();
        ledgers.entry(event.stream_id.as_str()).or_default().events.push(Written {
            kind: op.map_or(Kind::Append, |op| facts.told.operations[op].kind),
            token,
            invoked: op.map_or(0, |op| effects.invoked[op]),
            completed: op.and_then(|op| effects.completed[op]),
        });
    }
    ledgers
}

/// What was over before another thing began has the smaller version.
fn real_time(stream: &str, ledger: &Ledger, findings: &mut Findings) {
    let mut earliest: Option<&Written> = None;
    for written in ledger.events.iter().rev() {
        if let Some(later) = earliest
            && later.completed.is_some_and(|completed| completed < written.invoked)
        {
            let case = format!(
                "{stream}: {} was acknowledged before {} was sent, and comes after it",
                later.token, written.token
            );
            findings.add(Invariant::Order, "versions contradict real time", case);
        }
        let earlier = |one: &Written| one.completed.unwrap_or(Micros::MAX);
        if earliest.is_none_or(|known| earlier(written) < earlier(known)) {
            earliest = Some(written);
        }
    }
}

/// A refusal that claims something about the ledger.
struct Refused<'a> {
    operation: &'a Operation,
    attempt: &'a Attempt,
    code: &'a str,
    current: Option<u64>,
    stated: Option<u64>,
}

impl Refused<'_> {
    fn check(&self, ledger: Option<&Ledger>, window: (usize, usize), findings: &mut Findings) {
        let versions = window.0..=window.1;
        let holds = |claim: &dyn Fn(usize) -> bool| versions.clone().any(claim);
        let none = Ledger::default();
        let ledger = ledger.unwrap_or(&none);
        let (rule, is_true) = match self.code {
            "ledger-full" => {
                ("a refusal rests on no state of its time", holds(&|v| ledger.is_full_at(v)))
            }
            "ledger-has-room" => {
                ("a refusal rests on no state of its time", holds(&|v| !ledger.is_full_at(v)))
            }
            "version-mismatch" | "exists" => {
                let other = |v: usize| {
                    let v = v as u64;
                    Some(v) != self.stated && self.current.is_none_or(|current| current == v)
                };
                ("a conflict names no version of its time", holds(&other))
            }
            _no_claim => return,
        };
        if !is_true {
            let case = format!(
                "{:?}: {} (current {:?}) at {}..{} µs; versions {}..={}",
                self.operation,
                self.code,
                self.current,
                self.attempt.invoked,
                self.attempt.ended,
                window.0,
                window.1
            );
            findings.add(Invariant::Order, rule, case);
        }
    }
}

fn keys(facts: &Facts, findings: &mut Findings) {
    let mut by_key: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in &facts.told.attempts {
        let key = facts.told.operations[attempt.op].key.as_str();
        by_key.entry(key).or_default().push(attempt);
    }
    for (key, attempts) in &mut by_key {
        attempts.sort_by_key(|attempt| attempt.invoked);
        one_answer(key, attempts, findings);
        later_ones(facts, key, attempts, findings);
    }
    for (key, count) in &facts.tables.kept_keys {
        if *count != 1 {
            findings.add(Invariant::Keys, "a key has several verdicts", format!("{key}: {count}"));
        }
    }
}

fn one_answer(key: &str, attempts: &[&Attempt], findings: &mut Findings) {
    let verdicts = attempts.iter().filter(|attempt| attempt.outcome.is_verdict());
    let answers: BTreeSet<(usize, u16, &str)> = verdicts
        .map(|attempt| match &attempt.outcome {
            Outcome::Ok { status, body, .. } => (attempt.op, *status, body.as_str()),
            Outcome::Fail { status, code, .. } => (attempt.op, *status, code.as_str()),
            Outcome::Info(_) => (attempt.op, 0, ""),
        })
        .collect();
    if answers.len() > 1 {
        let case = format!("{key}: {answers:?}");
        findings.add(Invariant::Keys, "a key has several answers", case);
    }
}

/// After a verdict every later request gets it again, or is told that its body is another.
fn later_ones(facts: &Facts, key: &str, attempts: &[&Attempt], findings: &mut Findings) {
    let Some(verdict) = attempts.iter().filter(|a| a.outcome.is_verdict()).min_by_key(|a| a.ended)
    else {
        return;
    };
    for later in attempts.iter().filter(|attempt| attempt.invoked > verdict.ended) {
        let same = later.op == verdict.op;
        let fits = match &later.outcome {
            Outcome::Info(_) => true,
            Outcome::Ok { replayed, .. } => same && *replayed,
            Outcome::Fail { code, replayed, .. } if is_refusal(code) => same && *replayed,
            Outcome::Fail { status, code, .. } => match code.as_str() {
                "idempotency-key-reused" => !same,
                "idempotency-key-in-progress" => true,
                _other => matches!(status, 0 | 408 | 429 | 503),
            },
        };
        if !fits {
            let operation = &facts.told.operations[later.op];
            let case =
                format!("{key}: {:?}; later {operation:?}: {:?}", verdict.outcome, later.outcome);
            findings.add(Invariant::Keys, "a later request is not answered by the verdict", case);
        }
    }
}
