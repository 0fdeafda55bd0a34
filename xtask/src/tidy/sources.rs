//! Sizes, names and forbidden words in source files.

use std::path::Path;

use super::Finding;
use super::walls::Wall;

const FILE_LINES: usize = 400;
const LINE_CHARS: usize = 100;
/// Names that say nothing. Whole words: `database` is none of them.
const BANNED: [&str; 11] = [
    "manager",
    "managers",
    "helper",
    "helpers",
    "util",
    "utils",
    "common",
    "processor",
    "processors",
    "base",
    "misc",
];
/// Clocks and randomness.
const IMPURE: [&str; 8] = [
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "Local::now",
    "Uuid::new_v4",
    "Uuid::now_v7",
    "rand::",
    "thread_rng",
];
/// What says that something is not finished. In pieces, or this file would be found.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];

/// Checks one Rust file; `wall` is the row of its crate.
pub(super) fn check(name: &str, text: &str, wall: Option<&Wall>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let for_tests = is_for_tests(name);
    let own: Vec<(usize, &str)> = if for_tests { Vec::new() } else { without_tests(text) };
    if own.len() > FILE_LINES {
        let text = format!("{} lines without tests; at most {FILE_LINES}", own.len());
        findings.push(Finding::new(name, text));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let length = line.chars().count();
        if length > LINE_CHARS {
            let text = format!("{length} characters; at most {LINE_CHARS}");
            findings.push(Finding::new(format!("{name}:{number}"), text));
        }
        if let Some(declared) = declared_name(line)
            && let Some(word) = banned_word(declared)
        {
            let text = format!("{declared} is named {word:?}, which says nothing");
            findings.push(Finding::new(format!("{name}:{number}"), text));
        }
    }
    let (pure, domain) = wall.map_or((false, false), |wall| (wall.pure, wall.domain));
    for (number, line) in own {
        let place = format!("{name}:{number}");
        let code = line.split("//").next().unwrap_or(line);
        if pure && let Some(word) = IMPURE.iter().find(|word| holds_word(code, word)) {
            findings.push(Finding::new(&place, format!("{word} in a pure crate: it is an input")));
        }
        if domain && has_catch_all(code) {
            findings.push(Finding::new(&place, "a catch-all arm: name every case"));
        }
    }
    findings
}

/// Unfinished work, in any text file.
pub(super) fn markers(name: &str, text: &str) -> Vec<Finding> {
    let unfinished = |line: &str| UNFINISHED.iter().find(|word| holds_word(line, word)).copied();
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(number, line)| {
            let word = unfinished(line)?;
            Some(Finding::new(format!("{name}:{number}"), format!("{word}: finish it or say so")))
        })
        .collect()
}

/// Banned names of files and folders.
pub(super) fn names_of_path(name: &str) -> Vec<Finding> {
    let parts = Path::new(name).components().map(|part| part.as_os_str().to_string_lossy());
    parts
        .filter_map(|part| {
            let stem = part.split('.').next()?.to_owned();
            let word = banned_word(&stem)?;
            Some(Finding::new(name, format!("{stem} is named {word:?}, which says nothing")))
        })
        .collect()
}

/// Code that only runs in tests.
fn is_for_tests(name: &str) -> bool {
    Path::new(name).iter().any(|part| part == "tests" || part == "tests.rs")
}

/// The numbered lines outside of `#[cfg(test)]` modules. The files are formatted, so a module
/// ends at the first closing brace with its own indentation.
fn without_tests(text: &str) -> Vec<(usize, &str)> {
    let mut own = Vec::new();
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_test = line.trim() == "#[cfg(test)]";
        let block = |next: &str| next.trim_end().ends_with('{');
        if is_test && lines.peek().is_some_and(|(_, next)| block(next)) {
            let end = format!("{indent}}}");
            lines.by_ref().find(|(_, line)| *line == end);
        } else {
            own.push((number, line));
        }
    }
    own
}

/// The name that a line declares: of a module or a type.
fn declared_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let mut word = words.next()?;
    if word == "pub" || word.starts_with("pub(") {
        word = words.find(|word| !word.ends_with(')'))?;
    }
    if !matches!(word, "mod" | "struct" | "enum" | "trait" | "type" | "union") {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    Some(&name[..end])
}

/// The banned word within a snake, kebab or camel case name.
fn banned_word(name: &str) -> Option<&'static str> {
    let mut words = vec![String::new()];
    for character in name.chars() {
        if !character.is_alphanumeric() || character.is_uppercase() {
            words.push(String::new());
        }
        if character.is_alphanumeric() {
            words.last_mut()?.extend(character.to_lowercase());
        }
    }
    BANNED.into_iter().find(|banned| words.iter().any(|word| word == banned))
}

/// Whether the text holds the word, not just as a part of a longer one.
fn holds_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let open = word.ends_with([':', '!']);
        !before.is_some_and(part_of_word) && (open || !after.is_some_and(part_of_word))
    })
}

/// `_ =>` or `_ if … =>`, alone or after another pattern.
fn has_catch_all(code: &str) -> bool {
    let code = code.trim_start();
    ["_ =>", "_ if "].iter().any(|arm| code.starts_with(arm))
        || code.contains("{ _ =>")
        || code.contains(", _ =>")
        || code.contains("| _ =>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.text).collect()
    }

    fn pure() -> Wall {
        Wall { pure: true, domain: true, ..Wall::default() }
    }

    #[test]
    fn long_files_and_lines_are_found_and_tests_do_not_count() {
        let long = "fn a() {}\n".repeat(401);
        assert_eq!(
            texts(check("x/src/a.rs", &long, None)),
            ["401 lines without tests; at most 400"]
        );
        assert!(check("x/tests/a.rs", &long, None).is_empty());
        let tested = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn a() {}\n".repeat(500));
        assert!(check("x/src/a.rs", &tested, None).is_empty());
        let mixed = format!("{tested}{long}");
        assert_eq!(check("x/src/a.rs", &mixed, None).len(), 1, "code after the tests counts");
        let wide = format!("// {}\n", "é".repeat(98));
        assert_eq!(texts(check("x/src/a.rs", &wide, None)), ["101 characters; at most 100"]);
    }

    #[test]
    fn clocks_and_randomness_are_found_in_pure_crates_only() {
        for code in ["SystemTime::now()", "Uuid::new_v4()", "let n = rand::random();"] {
            assert_eq!(check("x/src/a.rs", code, Some(&pure())).len(), 1, "{code}");
            assert!(check("x/src/a.rs", code, Some(&Wall::default())).is_empty());
        }
        assert!(check("x/src/a.rs", "// not Utc::now", Some(&pure())).is_empty());
        assert!(check("x/src/a.rs", "operand::x()", Some(&pure())).is_empty());
    }

    #[test]
    fn catch_all_arms_are_found_in_domain_crates() {
        for code in ["    _ => None,", "match a { _ => 1 }", "A | _ => 1,", "_ if b => 1,"] {
            assert_eq!(check("x/src/a.rs", code, Some(&pure())).len(), 1, "{code}");
            assert!(check("x/src/a.rs", code, None).is_empty());
        }
        assert!(check("x/src/a.rs", "(A, _) => 1,", Some(&pure())).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for line in ["struct TopicManager;", "pub(crate) mod utils;", "pub enum BaseKind {"] {
            assert_eq!(check("x/src/a.rs", line, None).len(), 1, "{line}");
        }
        for line in ["struct Database;", "mod base64;", "let common = 1;", "enum Basement {"] {
            assert!(check("x/src/a.rs", line, None).is_empty(), "{line}");
        }
        for path in ["x/src/helpers.rs", "x/common/a.rs", "x/src/event_processor.rs"] {
            assert_eq!(names_of_path(path).len(), 1, "{path}");
        }
        assert!(names_of_path("x/src/database.rs").is_empty());
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            assert_eq!(markers("a.md", &format!("a {word} b")).len(), 1, "{word}");
        }
        assert!(markers("a.md", "methods and mastodons").is_empty());
    }
}
