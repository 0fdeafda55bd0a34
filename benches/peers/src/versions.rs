//! What is compared, by name and version: as the lock files have them.

use serde_json::Value;
use std::fmt::Write;

const CRATES: &str = include_str!("../Cargo.lock");
const PACKAGES: &str = include_str!("../emmett/package-lock.json");

/// The case, and the packages behind it.
const COMPARED: [(&str, &[&str]); 4] = [
    ("plain", &["sqlx"]),
    ("cqrs-es", &["cqrs-es", "postgres-es"]),
    ("disintegrate", &["disintegrate", "disintegrate-postgres"]),
    ("umadb", &["umadb", "umadb-client"]),
];
const EMMETT: [&str; 3] = ["@event-driven-io/emmett", "@event-driven-io/emmett-postgresql", "pg"];

/// For people: a line per peer.
pub(crate) fn table() -> String {
    let mut text = String::new();
    let mut line = |case: &str, packages: Vec<String>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {case:<14} {}", packages.join(", "));
    };
    for (case, names) in COMPARED {
        line(case, names.iter().map(|name| format!("{name} {}", of_crate(name))).collect());
    }
    line("emmett", EMMETT.iter().map(|name| format!("{name} {}", of_package(name))).collect());
    text.truncate(text.trim_end().len());
    text
}

/// The newest of that name in `Cargo.lock`.
fn of_crate(name: &str) -> &'static str {
    let wanted = format!("name = \"{name}\"");
    let mut lines = CRATES.lines();
    let mut found = "?";
    while lines.any(|line| line == wanted) {
        let version = lines.next().and_then(|line| line.strip_prefix("version = "));
        found = version.map_or(found, |version| version.trim_matches('"'));
    }
    found
}

fn of_package(name: &str) -> String {
    let lock: Value = serde_json::from_str(PACKAGES).unwrap_or_default();
    let version = &lock["packages"][format!("node_modules/{name}")]["version"];
    version.as_str().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_known() {
        let table = table();
        assert!(!table.contains('?'), "{table}");
        assert!(of_crate("sqlx").starts_with("0.9"));
    }
}
