//! Real Apache Kafka and Postgres as child processes, for development and tests.
//!
//! ```no_run
//! let options = foldstream_local::Options::in_dir(".dev");
//! let local = foldstream_local::Local::start(options, &mut |step| eprintln!("{step}"))?;
//! println!("{} {}", local.kafka(), local.postgres_url("postgres"));
//! # Ok::<(), foldstream_local::LocalError>(())
//! ```
//!
//! Children listen on loopback only, run as a user without privileges, keep their data between
//! runs, and die with this process however it ends. Linux only: it rests on `prctl` and `/proc`.

mod abandoned;
mod child;
mod ephemeral;
mod error;
mod jars;
mod kafka;
mod local;
mod place;
mod ports;
mod postgres;
mod progress;

pub use ephemeral::shared;
pub use error::LocalError;
pub use jars::{KAFKA_VERSION, kafka_jars};
pub use local::{Detour, Local, Options};
pub use ports::free_port;
pub use progress::Progress;

/// The tools that are not installed, each with the Debian package that brings it.
#[must_use]
pub fn missing_tools() -> Vec<LocalError> {
    [postgres::newest_binaries().err(), kafka::java().err(), jars::maven().err()]
        .into_iter()
        .flatten()
        .collect()
}
