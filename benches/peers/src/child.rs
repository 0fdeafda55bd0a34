//! A process that belongs to a peer: its server, or the program that drives it.

use anyhow::{Context, Result};
use std::fs;
use std::process::Stdio;
use tokio::process::{ChildStdin, Command};

/// A child process; killed when dropped. What it reads from standard input ends when this process
/// ends, however it ends.
pub(crate) struct Child {
    pub(crate) process: tokio::process::Child,
    pid: u32,
    _input: Option<ChildStdin>,
}

impl Child {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = process.id().with_context(|| format!("{name} ended at once"))?;
        let input = process.stdin.take();
        Ok(Child { process, pid, _input: input })
    }
    /// Its processor time so far, in hundredths of a second.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name in parentheses may hold anything; user and system time are the 12th and 13th
        // field after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    }
    /// The most memory that it has held, in MB.
    pub(crate) fn peak_mb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let kilobytes: Option<f64> = kilobytes.and_then(|kilobytes| kilobytes.parse().ok());
        kilobytes.unwrap_or_default() * 1_024.0 / 1_000_000.0
    }
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.process.kill().await?)
    }
}
