//! Markdown: links that lead nowhere, tests that are named but not there, and what
//! ARCHITECTURE.md must hold.

use std::path::Path;

use super::Finding;
use super::metadata::Package;

const ARCHITECTURE_LINES: usize = 200;

/// ARCHITECTURE.md names every crate and stays short.
pub(super) fn architecture(text: &str, packages: &[Package]) -> Vec<Finding> {
    let finding = |text: String| Finding::new("ARCHITECTURE.md", text);
    let mut findings: Vec<Finding> = packages
        .iter()
        .filter(|package| !text.contains(&format!("`{}`", package.name)))
        .map(|package| finding(format!("does not name `{}`", package.name)))
        .collect();
    let lines = text.lines().count();
    if lines > ARCHITECTURE_LINES {
        findings.push(finding(format!("{lines} lines; at most {ARCHITECTURE_LINES}")));
    }
    findings
}

/// Relative links whose target is not there.
pub(super) fn links(root: &Path, name: &str, text: &str) -> Vec<Finding> {
    let folder = root.join(name);
    let folder = folder.parent().unwrap_or(root);
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line) {
            let path = target.split(['#', '?']).next().unwrap_or(target);
            let elsewhere = path.contains("://") || path.starts_with("mailto:");
            if !path.is_empty() && !elsewhere && !folder.join(path).exists() {
                let text = format!("the link to {target} leads nowhere");
                findings.push(Finding::new(format!("{name}:{number}"), text));
            }
        }
    }
    findings
}

/// Tests that a table row names after a link to their file, ``[`a.rs`](a.rs) `does_this` ``, and
/// that the file does not have.
pub(super) fn tests(root: &Path, name: &str, text: &str) -> Vec<Finding> {
    let folder = root.join(name);
    let folder = folder.parent().unwrap_or(root);
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| line.starts_with('|')) {
        for (file, rest) in line.split("](").skip(1).filter_map(|part| part.split_once(')')) {
            let Ok(source) = std::fs::read_to_string(folder.join(file)) else { continue };
            let named = rest.split('[').next().unwrap_or(rest).split('`').skip(1).step_by(2);
            for test in named.filter(|_| file.ends_with(".rs")) {
                if !source.contains(&format!("fn {test}(")) {
                    let text = format!("{file} has no test `{test}`");
                    findings.push(Finding::new(format!("{name}:{number}"), text));
                }
            }
        }
    }
    findings
}

/// The targets of `[text](target)` in a line; code between backticks holds none.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    let mut in_code = false;
    while let Some(at) = rest.find(['`', ']']) {
        let (here, after) = rest.split_at(at);
        rest = &after[1..];
        debug_assert!(!here.contains('`'), "the first of both was looked for");
        if after.starts_with('`') {
            in_code = !in_code;
        } else if !in_code && let Some(link) = rest.strip_prefix('(') {
            let end = link.find([')', ' ']).unwrap_or(link.len());
            found.push(link[..end].trim_matches(['<', '>']));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_are_found_and_living_ones_are_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("docs")).unwrap();
        std::fs::write(root.path().join("README.md"), "").unwrap();
        let text = "[a](../README.md#top) [b](gone.md) `[c](no.md)` [`d`](https://x.y/z) [e](#f)\n\
                    ```\n[g](no.md)\n```\n![h](picture.png \"title\")\n";
        let found = links(root.path(), "docs/page.md", text);
        assert_eq!(
            found,
            [
                Finding::new("docs/page.md:1", "the link to gone.md leads nowhere"),
                Finding::new("docs/page.md:5", "the link to picture.png leads nowhere"),
            ]
        );
    }

    #[test]
    fn a_test_that_is_named_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.rs"), "fn goes_well() {}").unwrap();
        let text = "| **All**, see `b` | [`a.rs`](a.rs) `goes_well`, `is_gone`; [x](b.md) `c` |\n\
                    [`a.rs`](a.rs) `only_in_tables`\n";
        let found = tests(root.path(), "page.md", text);
        assert_eq!(found, [Finding::new("page.md:1", "a.rs has no test `is_gone`")]);
    }

    #[test]
    fn a_crate_that_the_architecture_does_not_name_is_found_and_so_is_a_long_one() {
        let crates = [Package::planted("a", "a", &[]), Package::planted("b", "b", &[])];
        assert_eq!(
            architecture("`a`", &crates),
            [Finding::new("ARCHITECTURE.md", "does not name `b`")]
        );
        assert_eq!(architecture(&"`a` `b`\n".repeat(201), &crates).len(), 1);
    }
}
