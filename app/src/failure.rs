//! The one place that says how a process ends.

use foldstream_service::config::ConfigError;
use std::fmt;
use std::process::ExitCode;

/// How a command of the CLI can fail; the numbers are its exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did not do what was asked.
    Failed = 1,
    /// It was asked in a wrong way.
    Usage = 2,
    /// Not confirmed.
    Refused = 3,
    /// What it is about does not exist.
    NotFound = 4,
    /// It took too long.
    Timeout = 5,
    /// Something it needs does not answer.
    DependencyDown = 69,
    /// The configuration is not valid.
    Configuration = 78,
    /// Ctrl-C.
    Interrupted = 130,
}

/// An end that is not success: its exit code and a sentence for people.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong and what to do about it.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Failure { exit, message: message.to_string() }
    }
    /// It did not do what was asked.
    pub fn failed(message: impl fmt::Display) -> Self {
        Failure::new(Exit::Failed, message)
    }
    /// A key of the configuration has no value.
    pub(crate) fn missing(key: &str, env: &str) -> Self {
        let message = format!("`{key}` is not set: set it in foldstream.toml or as {env}");
        Failure::new(Exit::Configuration, message)
    }
    /// Prints the sentence and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message);
        ExitCode::from(self.exit as u8)
    }
}
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::new(Exit::Configuration, error)
    }
}
