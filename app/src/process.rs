//! What all roles of one process share.

use crate::roles::Stores;
use crate::settings::Settings;
use crate::{App, Exit, Failure};
use axum::Router;
use foldstream_service::context::{with_context, with_fallbacks};
use foldstream_service::health::{Health, admin_router};
use foldstream_service::metrics::{HttpMetrics, process_registry};
use foldstream_service::server::Server;
use prometheus::Registry;
use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pause between two tries to reach something that is down.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// One process: settings, metrics, health, the way to its end.
pub(crate) struct Process {
    pub(crate) app: App,
    pub(crate) settings: Settings,
    pub(crate) registry: Registry,
    pub(crate) http: HttpMetrics,
    pub(crate) health: Health,
    /// Cancelled when the process is to end.
    pub(crate) shutdown: CancellationToken,
    /// Everything that must come to its end before the process does.
    pub(crate) tasks: TaskTracker,
    /// The event stores that are open.
    pub(crate) stores: Stores,
    /// Whether `/readyz` asks Kafka.
    pub(crate) asks_kafka: AtomicBool,
    failed: Arc<AtomicBool>,
}

impl Process {
    pub(crate) fn new(
        app: App,
        settings: Settings,
        role: &str,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, Failure> {
        let registry = process_registry(app.name, env!("CARGO_PKG_VERSION"), role);
        let registry = registry.map_err(Failure::failed)?;
        let http = HttpMetrics::new(&registry).map_err(Failure::failed)?;
        Ok(Arc::new(Process {
            app,
            settings,
            registry,
            http,
            health: Health::new(),
            shutdown,
            tasks: TaskTracker::new(),
            stores: Stores::default(),
            asks_kafka: AtomicBool::new(false),
            failed: Arc::default(),
        }))
    }

    /// Runs a part of the process until its end; its failure is the process's.
    pub(crate) fn spawn<E: Display>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (shutdown, failed) = (self.shutdown.clone(), self.failed.clone());
        self.tasks.spawn(async move {
            if let Err(error) = work.await {
                tracing::error!(part = name, %error, "a part of the process failed; ending");
                failed.store(true, Ordering::Release);
                shutdown.cancel();
            }
        });
    }

    /// Serves a router on an address.
    pub(crate) async fn serve(
        &self,
        name: &'static str,
        address: &str,
        router: Router,
    ) -> Result<(), Failure> {
        let socket: SocketAddr = address.parse().map_err(|_| {
            let message =
                format!("`listen.{name}`: {address:?} is no address such as 0.0.0.0:7400");
            Failure::new(Exit::Configuration, message)
        })?;
        let router = with_context(with_fallbacks(router), self.http.clone());
        let limits = self.settings.http.clone();
        let server = Server::bind(socket, router, limits, self.http.clone()).await;
        let server = server.map_err(|error| {
            Failure::failed(format!("cannot listen on {address} for {name}: {error}"))
        })?;
        tracing::info!(name, %socket, "listening");
        self.tasks.spawn(server.run(self.shutdown.clone()));
        Ok(())
    }

    /// Serves health, metrics and operations.
    pub(crate) async fn serve_admin(&self, operations: Router) -> Result<(), Failure> {
        let router = admin_router(self.health.clone(), self.registry.clone()).merge(operations);
        self.serve("admin", &self.settings.listen.admin, router).await
    }

    /// Tries until it works, saying what it waits for; `None` when the process ends before.
    pub(crate) async fn until_ready<T, E: Display, R>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> R,
    ) -> Option<T>
    where
        R: Future<Output = Result<T, E>>,
    {
        let mut said = String::new();
        loop {
            tokio::select! {
                result = attempt() => match result {
                    Ok(value) => return Some(value),
                    Err(error) => {
                        let reason = error.to_string();
                        if reason != said {
                            tracing::warn!(what, reason, "not there yet; waiting");
                            said = reason;
                        }
                    }
                },
                () = self.shutdown.cancelled() => return None,
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_EVERY) => {}
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// Waits for the end, then for everything to come to its own.
    pub(crate) async fn until_ended(&self) {
        self.shutdown.cancelled().await;
        self.health.set_draining();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// 0, or 1 when a part of the process failed.
    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.failed.load(Ordering::Acquire) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
