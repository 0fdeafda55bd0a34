//! Clients. They keep their own pace: a slow answer delays nobody else.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::dice::{Dice, Zipf};
use crate::history::{Attempt, History, Kind, Operation, Outcome, Read};
use crate::world::{client, lock};

/// How much is asked.
#[derive(Debug, Clone)]
pub struct Load {
    /// Requests a second to streams that are drawn.
    pub rate: f64,
    /// So many streams, the n-th drawn in proportion to 1/n.
    pub streams: usize,
    /// So many streams more whose writers state the version that they build on.
    pub hot: usize,
    /// Writers of each hot stream.
    pub writers: usize,
    /// Each of them writes about so often.
    pub hot_every: Duration,
}

impl Default for Load {
    fn default() -> Self {
        let hot_every = Duration::from_millis(1_200);
        Load { rate: 60.0, streams: 500, hot: 5, writers: 8, hot_every }
    }
}

/// No request waits longer: a little more than the server's own deadline.
const DEADLINE: Duration = Duration::from_secs(7);
/// More requests than this are not under way; what would be sent is counted as missed.
const MOST_UNDER_WAY: usize = 1_500;
/// Of all requests so many are sent again, and so many with another body.
const AGAIN: (f64, f64) = (0.10, 0.01);

/// Where requests go, and what is remembered of them.
#[derive(Debug)]
pub struct Clients {
    apis: Vec<String>,
    client: Client,
    history: Arc<History>,
    next: AtomicUsize,
    /// Ledgers that said they are full.
    full: Mutex<HashSet<String>>,
    under_way: AtomicUsize,
    /// Requests that were due while too many were under way.
    pub missed: AtomicUsize,
}

impl Clients {
    /// Clients of these `commands`.
    #[must_use]
    pub fn new(apis: Vec<String>, history: Arc<History>) -> Self {
        Clients {
            apis,
            client: client(DEADLINE),
            history,
            next: AtomicUsize::new(1),
            full: Mutex::default(),
            under_way: AtomicUsize::new(0),
            missed: AtomicUsize::new(0),
        }
    }

    /// A new operation with a token and a key of its own.
    pub fn intend(&self, stream: &str, kind: Kind, if_match: Option<u64>) -> usize {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (key, token) = (format!("k-{number}"), format!("t-{number}"));
        self.history.intend(Operation { key, stream: stream.to_owned(), kind, token, if_match })
    }

    /// The same key with another body.
    fn intend_twin(&self, op: usize) -> usize {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let token = format!("t-{number}");
        self.history.intend(Operation { token, ..self.history.operation(op) })
    }

    /// What would move a ledger on.
    fn kind_for(&self, stream: &str) -> Kind {
        if lock(&self.full).contains(stream) { Kind::Extend } else { Kind::Append }
    }

    /// Sends an operation once.
    pub async fn send(&self, op: usize, through: usize) -> Outcome {
        let operation = self.history.operation(op);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let invoked = self.history.now();
        let outcome = self.ask(&operation, through).await;
        let ended = self.history.now();
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        self.learn(&operation, &outcome);
        self.history.attempted(Attempt { op, through, invoked, ended, outcome: outcome.clone() });
        outcome
    }

    async fn ask(&self, operation: &Operation, through: usize) -> Outcome {
        let Operation { key, stream, kind, token, if_match } = operation;
        let url = format!("{}/{stream}/commands/{}", self.apis[through], kind.command());
        let body = json!({ "token": token }).to_string();
        let request = self.client.post(url).header("content-type", "application/json");
        let request = request.header("idempotency-key", key).body(body);
        let request = match if_match {
            Some(0) => request.header("if-none-match", "*"),
            Some(version) => request.header("if-match", format!("\"{version}\"")),
            None => request,
        };
        let response = match request.send().await {
            Ok(response) => response,
            // No connection at all: nothing was sent.
            Err(error) if error.is_connect() => {
                let code = "no-connection".to_owned();
                return Outcome::Fail { status: 0, code, current: None, replayed: false };
            }
            Err(error) => return Outcome::Info(chain(&error)),
        };
        let status = response.status().as_u16();
        let replayed = response.headers().contains_key("idempotency-replayed");
        match response.text().await {
            Ok(body) => outcome(status, body, replayed),
            Err(error) => Outcome::Info(format!("{status} without its body: {}", chain(&error))),
        }
    }

    fn learn(&self, operation: &Operation, outcome: &Outcome) {
        let mut full = lock(&self.full);
        match outcome {
            Outcome::Fail { code, .. } if code == "ledger-full" => {
                full.insert(operation.stream.clone());
            }
            Outcome::Fail { code, .. } if code == "ledger-has-room" => {
                full.remove(&operation.stream);
            }
            Outcome::Ok { .. } if operation.kind == Kind::Extend => {
                full.remove(&operation.stream);
            }
            Outcome::Ok { .. } | Outcome::Fail { .. } | Outcome::Info(_) => {}
        }
    }

    /// Reads a ledger's version; `None` where there is no answer.
    pub async fn read(&self, stream: &str, through: usize) -> Option<u64> {
        let invoked = self.history.now();
        let url = format!("{}/{stream}/state", self.apis[through]);
        let response = self.client.get(url).send().await.ok()?;
        let etag = response.headers().get("etag").and_then(|value| value.to_str().ok());
        let version = match response.status().as_u16() {
            200 => etag?.trim_matches('"').parse().ok()?,
            404 => 0,
            _other => return None,
        };
        let ended = self.history.now();
        let stream = stream.to_owned();
        self.history.read(Read { stream, through, invoked, ended, version });
        Some(version)
    }

    /// Sends what is unresolved again until it is not, or the time is over.
    pub async fn resolve(&self, until: Instant) {
        let mut round = 0;
        loop {
            let open = self.history.unresolved();
            if open.is_empty() || Instant::now() > until {
                return;
            }
            for chunk in open.chunks(32) {
                let sends = chunk.iter().map(|op| self.send(*op, round % self.apis.len()));
                futures(sends.collect()).await;
            }
            round += 1;
            sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn futures<T>(all: Vec<impl Future<Output = T>>) {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(move |context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn outcome(status: u16, body: String, replayed: bool) -> Outcome {
    let json: Value = serde_json::from_str(&body).unwrap_or_default();
    match status {
        200 | 201 => match json["version"].as_u64() {
            Some(version) => Outcome::Ok { version, status, body, replayed },
            None => Outcome::Info(format!("{status} without a version: {body}")),
        },
        // The server says itself that it does not know, or may have failed anywhere.
        500 | 502 | 504 => Outcome::Info(format!("{status} {}", json["code"])),
        _certain => {
            let code = json["code"].as_str().unwrap_or_default().to_owned();
            let current = json["current_version"].as_u64();
            Outcome::Fail { status, code, current, replayed }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs all clients until that time, and waits for their last answers.
pub async fn run(clients: Arc<Clients>, load: &Load, seed: u64, until: Instant) {
    let mut tasks = JoinSet::new();
    for hot in 0..load.hot {
        for writer in 0..load.writers {
            let dice = Dice::new(seed, &format!("hot {hot} {writer}"));
            let clients = Arc::clone(&clients);
            tasks.spawn(write_hot(clients, format!("hot-{hot}"), load.hot_every, dice, until));
        }
    }
    let mut dice = Dice::new(seed, "load");
    let zipf = Zipf::of(load.streams);
    let mut ticks = interval(Duration::from_secs_f64(1.0 / load.rate.max(0.1)));
    while Instant::now() < until {
        ticks.tick().await;
        while tasks.try_join_next().is_some() {}
        if clients.under_way.load(Ordering::Relaxed) > MOST_UNDER_WAY {
            clients.missed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let stream = format!("s-{}", zipf.draw(&mut dice));
        let op = clients.intend(&stream, clients.kind_for(&stream), None);
        spawn(&mut tasks, &clients, op, dice.below(clients.apis.len()), Duration::ZERO);
        let later = dice.between(Duration::ZERO, Duration::from_secs(5));
        let through = dice.below(clients.apis.len());
        if dice.happens(AGAIN.0) {
            spawn(&mut tasks, &clients, op, through, later);
        } else if dice.happens(AGAIN.1) {
            spawn(&mut tasks, &clients, clients.intend_twin(op), through, later);
        }
    }
    while tasks.join_next().await.is_some() {}
    clients.history.flush();
}

fn spawn(
    tasks: &mut JoinSet<()>,
    clients: &Arc<Clients>,
    op: usize,
    through: usize,
    later: Duration,
) {
    let clients = Arc::clone(clients);
    tasks.spawn(async move {
        sleep(later).await;
        clients.send(op, through).await;
    });
}

/// One writer of a hot stream: what it writes builds on what it last saw.
async fn write_hot(
    clients: Arc<Clients>,
    stream: String,
    every: Duration,
    mut dice: Dice,
    until: Instant,
) {
    let mut known = Some(0);
    let mut next = Instant::now() + every.mul_f64(dice.share());
    while next < until {
        sleep_until(next).await;
        next += every.mul_f64(0.5 + dice.share());
        let through = dice.below(clients.apis.len());
        let Some(version) = known else {
            known = clients.read(&stream, through).await;
            continue;
        };
        let op = clients.intend(&stream, clients.kind_for(&stream), Some(version));
        known = match clients.send(op, through).await {
            Outcome::Ok { version, .. } => Some(version),
            Outcome::Fail { current, .. } => current,
            Outcome::Info(_) => None,
        };
    }
}
