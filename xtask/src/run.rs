//! Running cargo and other programs, with a limit on their time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// cargo in the workspace root, the same one that runs this.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(args);
    command
}

/// What to answer for a program that has ended.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    // No code: it ended by a signal.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    ExitCode::from(code)
}

/// Waits for a program; at the deadline it is killed together with all it has started.
pub(crate) fn wait_until(command: &mut Command, deadline: Instant) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            kill_tree(child.id());
            child.wait()?;
            bail!("out of time: {name} was killed");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a process and its descendants: exactly those.
fn kill_tree(root: u32) {
    let mut doomed = vec![root];
    let parents = parents();
    let mut next = 0;
    while let Some(parent) = doomed.get(next).copied() {
        doomed.extend(parents.iter().filter(|(_, p)| **p == parent).map(|(child, _)| *child));
        next += 1;
    }
    let list: Vec<String> = doomed.iter().map(u32::to_string).collect();
    // The shell's own `kill`: the program of that name is not on every machine.
    let _ = Command::new("sh").args(["-c", &format!("kill -9 {}", list.join(" "))]).status();
}

/// The parent of every process.
fn parents() -> BTreeMap<u32, u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // `pid (name) state parent …`; the name may hold anything, brackets too.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_deadline_a_program_ends_with_all_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", file.display());
        let began = Instant::now();
        let deadline = began + Duration::from_millis(500);
        let ended = wait_until(Command::new("sh").args(["-c", &script]), deadline);
        assert!(ended.unwrap_err().to_string().starts_with("out of time"));
        assert!(began.elapsed() < Duration::from_secs(20));
        let pid: u32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let line = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let limit = Instant::now() + Duration::from_secs(10);
        while !line().is_empty() {
            assert!(Instant::now() < limit, "the grandchild lives");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
