//! A report for people.

use std::fmt::Write as _;

use crate::stage::Report;

/// The table at the end of a run.
#[must_use]
pub fn shown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "seed {}, {:.0} s of load and faults", report.seed, report.seconds);
    let pairs = |pairs: Vec<String>| pairs.join(", ");
    let operations = report.operations.iter().map(|(name, count)| format!("{count} {name}"));
    let _ = writeln!(text, "  {}", pairs(operations.collect()));
    let faults = report.faults.iter().map(|(class, count)| format!("{count} × {class}"));
    let _ = writeln!(text, "  faults: {}", pairs(faults.collect()));
    let rss = report.rss_kib.iter().map(|(name, kib)| format!("{name} {} MB", kib / 1024));
    let _ = writeln!(text, "  memory: {}", pairs(rss.collect()));
    let _ =
        writeln!(text, "  {:>9} {:>9}  after (ms to the first ok, to no backlog)", "ok", "relayed");
    let ms = |ms: Option<u64>| ms.map_or("–".to_owned(), |ms| ms.to_string());
    for recovery in &report.recoveries {
        let (ok, drained) = (ms(recovery.first_ok_ms), ms(recovery.drained_ms));
        let _ = writeln!(text, "  {ok:>9} {drained:>9}  {}", recovery.faults.join(" + "));
    }
    if report.violations.is_empty() {
        text.push_str("  every invariant holds\n");
    }
    for violation in &report.violations {
        let _ = writeln!(text, "VIOLATED {violation}");
    }
    if let Some(dir) = &report.dir {
        let _ = writeln!(text, "traces: {}\nagain:  {}", dir.display(), report.again);
    }
    text
}
