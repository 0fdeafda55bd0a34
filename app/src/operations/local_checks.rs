//! What `doctor` can see of this machine without asking anybody.

use super::doctor::Line;
use foldstream_local::missing_tools;
use std::fs;
use std::process::Command;

/// Below this, files and sockets run out under load.
const ENOUGH_FILES: u64 = 4_096;
/// Below this, topics and tables run out of room soon.
const ENOUGH_DISK_BYTES: u64 = 2 << 30;

pub(super) fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for missing in missing_tools() {
        lines.push(Line::warn("tools", "something `dev` needs is missing", missing.to_string()));
    }
    if lines.is_empty() {
        lines.push(Line::ok("tools", versions()));
    }
    lines.push(disk());
    lines.push(open_files());
    lines
}

fn versions() -> String {
    let first_line = |program: &str, flag: &str| {
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Some(String::from_utf8_lossy(&text).lines().next()?.to_owned())
    };
    let found = [first_line("java", "-version"), first_line("mvn", "--version")].map(plain);
    found.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Without the colours that Maven prints also where nobody sees them.
fn plain(line: Option<String>) -> Option<String> {
    let line = line?;
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
    Some(rest.fold(first, |text, part| text + part))
}

fn disk() -> Line {
    let output = Command::new("df").args(["--output=avail", "-B1", "."]).output();
    let free = output.ok().and_then(|output| {
        String::from_utf8_lossy(&output.stdout).lines().nth(1)?.trim().parse::<u64>().ok()
    });
    match free {
        None => Line::warn("disk", "cannot be read", "look at `df .`"),
        Some(free) if free < ENOUGH_DISK_BYTES => {
            Line::warn("disk", format!("{} MB free", free >> 20), "make room on this volume")
        }
        Some(free) => Line::ok("disk", format!("{} GB free", free >> 30)),
    }
}

fn open_files() -> Line {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    match limit {
        Some(limit) if limit < ENOUGH_FILES => {
            Line::warn("open files", format!("at most {limit}"), "raise it: `ulimit -n 65536`")
        }
        Some(limit) => Line::ok("open files", format!("at most {limit}")),
        None => Line::ok("open files", "no limit is known"),
    }
}
