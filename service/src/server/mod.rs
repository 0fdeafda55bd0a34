//! The HTTP server: an accept loop of our own, because every wait needs a deadline.

mod body;
mod connection;
mod detach;
mod guard;
mod stream;

pub use body::BodyDeadlinePassed;
pub(crate) use body::Guarded;
pub use detach::detached;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::HttpMetrics;

/// What a server bears. Every field has a default that fits a public port.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections open at once; one more is told 503 and closed. Default 2,000.
    pub max_connections: usize,
    /// From the first byte of a head, or from the connect, to its end, in ms. Default 5 s.
    pub header_deadline_ms: u64,
    /// From the end of the head to the end of the body, in ms. Default 10 s.
    pub body_deadline_ms: u64,
    /// Between two requests of a connection, in ms. Default 60 s.
    pub idle_deadline_ms: u64,
    /// How long a client may take none of an answer, in ms. Default 30 s.
    pub write_deadline_ms: u64,
    /// What requests in flight get at the end, in ms; then they are cut. Default 10 s.
    pub drain_deadline_ms: u64,
    /// All headers of a request together, in bytes, at least 8,192. Default 32 KiB.
    pub max_header_bytes: usize,
    /// Headers of a request. Default 100.
    pub max_headers: usize,
    /// Path and query together, in bytes. Default 8 KiB.
    pub max_uri_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 2_000,
            header_deadline_ms: 5_000,
            body_deadline_ms: 10_000,
            idle_deadline_ms: 60_000,
            write_deadline_ms: 30_000,
            drain_deadline_ms: 10_000,
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            max_uri_bytes: 8 * 1024,
        }
    }
}

/// A server that is bound but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: HttpMetrics,
}

impl Server {
    /// Binds `address`; port 0 takes a free one. HTTP/1.1 only.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        router: Router,
        limits: Limits,
        metrics: HttpMetrics,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, router, limits, metrics })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is cancelled, then drains: accepts no more, lets requests in flight
    /// end, cuts what is left after the drain deadline. Handlers see the shutdown as the request
    /// extension [`Draining`].
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, router, limits, metrics } = self;
        let drain = Duration::from_millis(limits.drain_deadline_ms);
        let capacity = Arc::new(Semaphore::new(limits.max_connections));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        let shared = Arc::new(connection::Shared {
            router,
            limits,
            draining: shutdown.clone(),
            cut: cut.clone(),
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    rest_after(&error, &shutdown).await;
                    continue;
                }
            };
            match Arc::clone(&capacity).try_acquire_owned() {
                Ok(permit) => {
                    let open = Open::new(permit, &metrics);
                    connections.spawn(connection::serve(socket, Arc::clone(&shared), open));
                }
                Err(_) => {
                    metrics.shed("connections");
                    refuse(socket, &refusals, &connections);
                }
            }
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(drain, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "drain deadline passed, cutting");
            cut.cancel();
            connections.wait().await;
        }
    }
}

/// The server's shutdown, as a request extension: long answers, such as live updates, end on it.
#[derive(Debug, Clone)]
pub struct Draining(pub CancellationToken);

/// How many connections beyond the cap are told so at the same time; more are just closed.
const MAX_REFUSALS: usize = 64;

/// One open connection: its room under the cap and its count in the metrics.
pub(crate) struct Open {
    _permit: OwnedSemaphorePermit,
    gauge: prometheus::IntGauge,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit, metrics: &HttpMetrics) -> Self {
        let gauge = metrics.connections().clone();
        gauge.inc();
        Self { _permit: permit, gauge }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// `accept` fails for one connection, or for want of file descriptors: then others must end first.
async fn rest_after(error: &io::Error, shutdown: &CancellationToken) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    );
    if of_one_connection {
        return;
    }
    tracing::error!(%error, "cannot accept connections");
    let pause = tokio::time::sleep(Duration::from_millis(100));
    tokio::select! { () = pause => {}, () = shutdown.cancelled() => {} }
}

fn refuse(socket: TcpStream, refusals: &Arc<Semaphore>, connections: &TaskTracker) {
    if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
        connections.spawn(async move {
            stream::refuse(socket).await;
            drop(permit);
        });
    }
}
