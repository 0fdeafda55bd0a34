//! Small changes of source files, each found by the lines around it.

use anyhow::{Context, Result, ensure};

/// A line to put into a file.
pub(super) enum Edit {
    /// Among the lines that begin like it, in their order.
    Sorted { line: String },
    /// As the last one of the `vec![…]` in a function.
    InList { function: &'static str, line: String },
    /// As one more call in a chain of calls that begin with `call`.
    Chained { call: &'static str, argument: String },
}

impl Edit {
    pub(super) fn sorted(line: String) -> Self {
        Self::Sorted { line }
    }

    pub(super) fn in_list(function: &'static str, line: String) -> Self {
        Self::InList { function, line }
    }

    pub(super) fn chained(call: &'static str, argument: String) -> Self {
        Self::Chained { call, argument }
    }

    /// The text with the line in it.
    ///
    /// # Errors
    /// The place is not found, or the line is there already.
    pub(super) fn apply(&self, text: &str) -> Result<String> {
        match self {
            Self::Sorted { line } => sorted(text, line),
            Self::InList { function, line } => in_list(text, function, line),
            Self::Chained { call, argument } => {
                let at = text
                    .rfind(call)
                    .with_context(|| format!("no {call}…>() to put {call}{argument}>() behind"))?;
                let length = text[at..].find("()").context("a call ends with ()")? + "()".len();
                let (before, after) = text.split_at(at + length);
                Ok(format!("{before}\n{call}{argument}>(){after}"))
            }
        }
    }
}

fn sorted(text: &str, line: &str) -> Result<String> {
    let keyword = &line[..line.rfind(' ').unwrap_or(0)];
    let keyword = keyword.split_once("::").map_or(keyword, |_| "pub use");
    let alike = |other: &str| other.starts_with(keyword) && other.ends_with(';');
    let lines: Vec<&str> = text.lines().collect();
    ensure!(!lines.contains(&line), "{line} is there already");
    let last = lines.iter().rposition(|other| alike(other)).context("no lines like it")?;
    let first = lines.iter().position(|other| alike(other) && *other > line);
    let at = first.unwrap_or(last + 1);
    Ok(with_line(&lines, at, line))
}

fn in_list(text: &str, function: &str, line: &str) -> Result<String> {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|other| other.starts_with(function));
    let start = start.with_context(|| format!("no {function}"))?;
    let end = lines[start..].iter().position(|other| other.trim() == "]");
    let end = end.with_context(|| format!("no list in {function}"))?;
    Ok(with_line(&lines, start + end, line))
}

fn with_line(lines: &[&str], at: usize, line: &str) -> String {
    let mut lines = lines.to_vec();
    lines.insert(at, line);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_where_its_like_are() {
        let text = "//! Doc.\n\nmod a;\nmod c;\n\npub use a::A;\npub use c::{C, D};\n";
        let module = Edit::sorted("mod b;".into()).apply(text).unwrap();
        assert!(module.contains("mod a;\nmod b;\nmod c;\n"));
        let named = Edit::sorted("pub use z::{Y, Z};".into()).apply(text).unwrap();
        assert!(named.ends_with("pub use c::{C, D};\npub use z::{Y, Z};\n"));
        assert!(Edit::sorted("mod a;".into()).apply(text).is_err(), "twice");
    }

    #[test]
    fn a_registration_goes_to_the_end_of_its_list() {
        let text = "pub fn all() -> X {\n    vec![\n        a,\n    ]\n}\n";
        let edited = Edit::in_list("pub fn all()", "        b,".into()).apply(text).unwrap();
        assert_eq!(edited, "pub fn all() -> X {\n    vec![\n        a,\n        b,\n    ]\n}\n");
        assert!(Edit::in_list("pub fn none()", "b".into()).apply(text).is_err());
    }

    #[test]
    fn a_call_goes_behind_the_last_of_its_kind() {
        let edit = Edit::chained(".aggregate::<", "C".into());
        let edited = edit.apply("x().aggregate::<A>().aggregate::<B>().end()").unwrap();
        assert_eq!(edited, "x().aggregate::<A>().aggregate::<B>()\n.aggregate::<C>().end()");
        assert!(edit.apply("x()").is_err());
    }
}
