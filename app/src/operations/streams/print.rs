//! Streams for people: within 100 columns where there is no terminal to say how wide it is.

use crate::operations::table;
use serde_json::Value;

/// Where nothing says how wide the output is.
const COLUMNS: u16 = 100;
/// Lines of one event's data; the rest is left to `--json`.
const DATA_LINES: usize = 6;

pub(super) fn json(value: &Value) {
    println!("{value:#}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("–")
}

/// `shop.invoices.InvoiceIssued` → `InvoiceIssued`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

pub(super) fn streams(list: &Value) {
    let mut table = table(&["stream", "version", "last event", "at"]);
    if table.width().is_none() {
        table.set_width(COLUMNS);
    }
    for stream in list.as_array().into_iter().flatten() {
        table.add_row([
            text(&stream["stream"]),
            &stream["version"].to_string(),
            short(text(&stream["last_type"])),
            text(&stream["last_at"]),
        ]);
    }
    println!("{table}");
}

pub(super) fn history(list: &Value) {
    for event in list.as_array().into_iter().flatten() {
        println!("{} {}  {}", event["version"], text(&event["type"]), text(&event["time"]));
        println!("  actor {}, position {}", text(&event["actor"]), event["position"]);
        for member in ["correlation", "causation", "traceparent"] {
            println!("  {member} {}", text(&event[member]));
        }
        let data = event["data"].to_string();
        for line in wrapped(&data, usize::from(COLUMNS) - 4, DATA_LINES) {
            println!("  {line}");
        }
        println!();
    }
}

pub(super) fn state(answer: &Value) {
    println!("{} at version {}", text(&answer["stream"]), answer["version"]);
    println!("{:#}", answer["state"]);
}

/// One event in one line.
pub(super) fn line(event: &Value) -> String {
    format!(
        "{}  {}  {} {}  {}:{}",
        text(&event["time"]),
        text(&event["stream"]),
        event["version"],
        text(&event["type"]),
        event["partition"],
        event["position"],
    )
}

/// Lines of at most so many characters, and at most so many of them.
fn wrapped(text: &str, columns: usize, most: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut lines: Vec<String> =
        characters.chunks(columns).map(|line| line.iter().collect()).collect();
    if lines.len() > most {
        lines.truncate(most);
        lines.push(format!("… {} characters in all; --json shows them", characters.len()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_data_is_wrapped_and_cut() {
        assert_eq!(wrapped("abcdefg", 3, 3), ["abc", "def", "g"]);
        assert_eq!(wrapped("äöüß", 2, 9), ["äö", "üß"]);
        let cut = wrapped("abcdefg", 3, 2);
        assert_eq!(cut[..2], ["abc", "def"]);
        assert!(cut[2].contains('7') && cut.len() == 3, "{cut:?}");
    }
}
