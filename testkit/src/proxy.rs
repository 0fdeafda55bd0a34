//! A TCP proxy that fails on demand: for links that are slow, silent, cut or half open.
//!
//! ```no_run
//! # async fn test(database_url: &str) {
//! use foldstream_testkit::proxy::{Ending, Mode, Point, Proxy, Way};
//! let link = Proxy::before(database_url).await;
//! let through = link.instead_of(database_url); // what the code under test connects to
//! link.set_way(Way::ToClient, Mode::Drop); // questions arrive, answers are lost
//! link.heal();
//! link.cut_at(Way::ToServer, Point::Chunk(3), Ending::Reset); // once, then it passes again
//! # let _ = through;
//! # }
//! ```
//!
//! Memory is bounded: a direction of a connection holds at most [`QUEUE`] pieces of [`CHUNK`]
//! bytes, then its sender has to wait. All tasks and connections end when the proxy is dropped.

mod carry;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The most that is read, and so passed on, at once: bytes.
pub const CHUNK: usize = 16 * 1024;
/// How many pieces wait in one direction of a connection at most.
pub const QUEUE: usize = 32;

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the client asks.
    ToServer,
    /// What the server answers.
    ToClient,
}

/// Both directions.
pub const WAYS: [Way; 2] = [Way::ToServer, Way::ToClient];

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They pass later, in order: by the latency and up to the jitter on top.
    Delay {
        /// Every piece waits as long.
        latency: Duration,
        /// Up to this much longer.
        jitter: Duration,
    },
    /// They pass at this rate.
    Rate {
        /// At least one.
        bytes_per_second: u32,
    },
    /// They pass in writes of at most so many bytes, a millisecond apart.
    Slice {
        /// At least one.
        bytes: usize,
    },
    /// They are taken and kept until the mode is another; so is the end of the connection. With
    /// both directions so, the link is a black hole.
    Hold,
    /// They are taken and lost; the end of the connection is passed on.
    Drop,
}

/// How connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In order, as by a peer that exits.
    Close,
    /// With RST, as by a firewall or a machine that has restarted.
    Reset,
}

/// A place in what one direction carries, counted over all connections from the call that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// So many bytes still arrive.
    Bytes(u64),
    /// The k-th chunk (1-based; what one read yields) does not arrive.
    Chunk(u64),
}

/// A proxy on 127.0.0.1, from its creation until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    modes: [Mode; 2],
    refuses: bool,
}

#[derive(Debug)]
struct Shared {
    target: String,
    state: watch::Sender<State>,
    ends: watch::Sender<Ending>,
    trigger: Mutex<Trigger>,
    live: AtomicUsize,
    passed: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Trigger {
    armed: Option<(Way, Point, Ending)>,
    fired: bool,
}

impl Proxy {
    /// A proxy to `host:port`, on a free port. Its tasks belong to the runtime that calls.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn to(target: impl Into<String>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        Self::on(listener.expect("a machine has free ports"), target.into())
    }

    /// A proxy to `host:port` on a socket that is bound already: for a port that others have to be
    /// told before.
    ///
    /// # Panics
    /// The socket cannot be used.
    pub async fn on_socket(socket: std::net::TcpListener, target: impl Into<String>) -> Self {
        let nonblocking = socket.set_nonblocking(true);
        match nonblocking.and_then(|()| TcpListener::from_std(socket)) {
            Ok(listener) => Self::on(listener, target.into()),
            Err(error) => panic!("a socket for a proxy: {error}"),
        }
    }

    /// A proxy to the server that a URL names.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn before(url: &str) -> Self {
        let (scheme, place, _) = parts(url);
        let port = if scheme.starts_with("postgres") { 5432 } else { 80 };
        let target = if place.contains(':') { place.to_owned() } else { format!("{place}:{port}") };
        Self::to(target).await
    }

    fn on(listener: TcpListener, target: String) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = State { modes: [Mode::Pass; 2], refuses: false };
        let shared = Arc::new(Shared {
            target,
            state: watch::Sender::new(state),
            ends: watch::Sender::new(Ending::Close),
            trigger: Mutex::default(),
            live: AtomicUsize::new(0),
            passed: Default::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL with this proxy in place of its host and port.
    #[must_use]
    pub fn instead_of(&self, url: &str) -> String {
        let (before, _, after) = parts(url);
        format!("{before}{}{after}", self.address)
    }

    /// Both directions do this from now on, in existing connections too.
    pub fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.modes = [mode; 2]);
    }

    /// One direction does this from now on, in existing connections too.
    pub fn set_way(&self, way: Way, mode: Mode) {
        self.shared.state.send_modify(|state| state.modes[way as usize] = mode);
    }

    /// Whether new connections are reset at once; existing ones go on.
    pub fn refuse(&self, refuses: bool) {
        self.shared.state.send_modify(|state| state.refuses = refuses);
    }

    /// Ends all connections there are; new ones are taken.
    pub fn cut(&self, ending: Ending) {
        self.shared.ends.send_replace(ending);
    }

    /// Ends all connections and takes no new ones until [`Self::heal`].
    pub fn down(&self) {
        self.refuse(true);
        self.cut(Ending::Reset);
    }

    /// Everything passes; nothing is refused, no cut is waiting to happen.
    pub fn heal(&self) {
        self.disarm();
        let state = State { modes: [Mode::Pass; 2], refuses: false };
        self.shared.state.send_replace(state);
    }

    /// Ends the connection that comes to this point, once; others and later ones pass.
    pub fn cut_at(&self, way: Way, point: Point, ending: Ending) {
        let armed = Some((way, point, ending));
        *self.shared.trigger() = Trigger { armed, fired: false };
    }

    /// Forgets a cut that has not happened.
    pub fn disarm(&self) {
        self.shared.trigger().armed = None;
    }

    /// Whether the last [`Self::cut_at`] has happened.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        self.shared.trigger().fired
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// How many bytes have arrived by this way.
    #[must_use]
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns all others.
        self.accepting.abort();
    }
}

impl Shared {
    fn mode(&self, way: Way) -> Mode {
        self.state.borrow().modes[way as usize]
    }

    fn trigger(&self) -> std::sync::MutexGuard<'_, Trigger> {
        self.trigger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a chunk of so many bytes: how many of them arrive, and whether that was all.
    fn count(&self, way: Way, bytes: usize) -> (usize, Option<Ending>) {
        let mut trigger = self.trigger();
        let Some((armed, point, ending)) = trigger.armed else { return (bytes, None) };
        if armed != way {
            return (bytes, None);
        }
        let (pass, rest) = match point {
            Point::Bytes(left) => match usize::try_from(left).ok().filter(|left| *left <= bytes) {
                Some(left) => (left, None),
                None => (bytes, Some(Point::Bytes(left - bytes as u64))),
            },
            Point::Chunk(0 | 1) => (0, None),
            Point::Chunk(k) => (bytes, Some(Point::Chunk(k - 1))),
        };
        trigger.armed = rest.map(|rest| (way, rest, ending));
        trigger.fired = rest.is_none();
        (pass, rest.is_none().then_some(ending))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task; then all connections end.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // For example too many open files: others have to close some first.
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if shared.state.borrow().refuses {
            let _ = client.set_zero_linger();
            continue;
        }
        let ends = shared.ends.subscribe();
        connections.spawn(carry::connection(Arc::clone(&shared), client, ends));
    }
}

/// A URL in three: up to the host, host and port, the rest.
fn parts(url: &str) -> (&str, &str, &str) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find(['/', '?']).map_or(url.len(), |at| authority + at);
    let host = url[authority..end].rfind('@').map_or(authority, |at| authority + at + 1);
    (&url[..host], &url[host..end], &url[end..])
}
