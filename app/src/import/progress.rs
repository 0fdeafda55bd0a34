//! A bar for people at a terminal, a line now and then for logs, nothing for machines.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    bar: ProgressBar,
    lines: bool,
    begun: Instant,
    last_line: Instant,
    total: u64,
    documents: u64,
}

impl Progress {
    pub(super) fn new(total: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shown = terminal && !quiet;
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = "{bar:32} {pos}/{len} rows  {msg}  ETA {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        let lines = !terminal && !quiet;
        Progress { bar, lines, begun: now, last_line: now, total, documents: 0 }
    }
    pub(super) fn add(&mut self, rows: u64, documents: u64) {
        self.documents += documents;
        self.bar.inc(rows);
        let rate = self.documents as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!("{rate:.0} documents/s"));
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{}/{} rows, {rate:.0} documents/s", self.bar.position(), self.total);
        }
    }
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
