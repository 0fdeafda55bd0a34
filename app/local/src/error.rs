//! What can go wrong while real Kafka and Postgres are brought up.

use std::io;
use std::path::{Path, PathBuf};

/// Why the local infrastructure is not there; every message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// A program is not installed.
    #[error("{tool} is not installed; on Debian or Ubuntu: apt-get install -y {package}")]
    MissingTool {
        /// The program looked for.
        tool: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// Somebody else listens on a port that was asked for.
    #[error("port {port} for {purpose} is taken; stop what listens there or choose another port")]
    PortTaken {
        /// The port.
        port: u16,
        /// What it was for.
        purpose: &'static str,
    },
    /// Another living process runs its children over the same data directory.
    #[error("{data_dir} is in use by another process; stop it or choose another data directory")]
    InUse {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The data were written by a Postgres that is not installed any more.
    #[error(
        "the data in {data_dir} need Postgres {needed}, which is not installed; \
         apt-get install -y postgresql-{needed}, or remove the data directory"
    )]
    PostgresVersion {
        /// The data directory.
        data_dir: PathBuf,
        /// The major version that wrote it.
        needed: String,
    },
    /// A directory is not what it must be: somebody else's, or a link.
    #[error("{path} is not safe to use: {reason}; remove it")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The saved state cannot be read.
    #[error("{path} cannot be understood ({reason}); remove the data directory to begin anew")]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Maven did not bring the Kafka jars.
    #[error("the Kafka jars could not be fetched from Maven Central: {reason}")]
    Fetch {
        /// The end of what Maven said.
        reason: String,
    },
    /// A child ended before it was ready.
    #[error("{name} ended before it was ready; the end of {log}:\n{tail}")]
    Ended {
        /// Which child.
        name: &'static str,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A child did not become ready in time.
    #[error("{name} was not ready after {seconds} s; the end of {log}:\n{tail}")]
    NotReady {
        /// Which child.
        name: &'static str,
        /// How long it was waited for, in seconds.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// Something of an earlier run does not go away.
    #[error("process {pid} of an earlier run does not end; end it by hand")]
    Orphan {
        /// The process.
        pid: i32,
    },
    /// No user without privileges to run the children as.
    #[error("neither the user postgres nor nobody exists; children do not run as root")]
    NoUser,
    /// The operating system refused something.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl LocalError {
    /// Names the action and the path an IO error belongs to.
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
