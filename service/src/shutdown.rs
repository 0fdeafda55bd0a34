//! Signals to a cancellation token.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal.
pub const INTERRUPTED: i32 = 130;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once with 130.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if cancel.is_cancelled() {
                tracing::warn!(signal = name, "second signal: ending at once");
                std::process::exit(INTERRUPTED);
            }
            tracing::info!(signal = name, "draining; a second signal ends at once");
            cancel.cancel();
        }
    });
    Ok(token)
}
