//! `streams …`: what operators ask of event stores.

use super::AdminArgs;
use clap::{Args, Subcommand};
use foldstream_core::{Timestamp, check_stream_id};
use std::str::FromStr;

#[derive(Debug, Subcommand)]
pub(crate) enum StreamsAction {
    /// Which streams there are, by aggregate and id.
    Ls(StreamsLs),
    /// What happened to one: every event with who, why and when.
    Show(StreamsShow),
    /// The state of one, now or before.
    State(StreamsState),
    /// The last events, and with --follow all new ones as they are committed.
    Tail(StreamsTail),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StreamsLs {
    /// Only those of this aggregate, such as `invoices`.
    #[arg(long)]
    pub(crate) aggregate: Option<String>,
    /// Only those whose ids begin so.
    #[arg(long, value_parser = prefix)]
    pub(crate) prefix: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// Those after this one: where the page before ended.
    #[arg(long, value_name = "STREAM")]
    pub(crate) after: Option<StreamName>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StreamsShow {
    /// Which, such as `invoices/536365`.
    pub(crate) stream: StreamName,
    /// The first version.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: u64,
    /// How many events at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StreamsState {
    /// Which, such as `invoices/536365`.
    pub(crate) stream: StreamName,
    /// After this many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "as_of")]
    pub(crate) version: Option<u64>,
    /// After what was recorded up to this instant, such as `2010-12-01T08:26:00Z`.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    pub(crate) as_of: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct StreamsTail {
    /// Only the events of this stream.
    #[arg(conflicts_with = "aggregate")]
    pub(crate) stream: Option<StreamName>,
    /// Only the events of this aggregate.
    #[arg(long)]
    pub(crate) aggregate: Option<String>,
    /// Where to begin: `start`, or `[AGGREGATE:]PARTITION:POSITION`, several with commas (the
    /// partitions that are not named begin at their end). With STREAM: a version.
    #[arg(long, value_name = "POSITION", value_delimiter = ',')]
    pub(crate) from: Vec<String>,
    /// How many of the last events to begin with.
    #[arg(long, default_value_t = 10, conflicts_with = "from",
          value_parser = clap::value_parser!(u32).range(0..=500))]
    pub(crate) last: u32,
    /// Goes on with new events until Ctrl-C.
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

/// `invoices/536365`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamName {
    pub(crate) aggregate: String,
    pub(crate) id: String,
}

impl FromStr for StreamName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rule = "a stream is AGGREGATE/ID, such as invoices/536365";
        let (aggregate, id) = text.split_once('/').ok_or(rule)?;
        let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if aggregate.is_empty() || !aggregate.bytes().all(kebab) {
            return Err(format!("{rule}; the aggregate's name is in kebab-case"));
        }
        check_stream_id(id).map_err(|invalid| format!("{rule}; {}", invalid.detail))?;
        Ok(StreamName { aggregate: aggregate.to_owned(), id: id.to_owned() })
    }
}

impl std::fmt::Display for StreamName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.aggregate, self.id)
    }
}

/// What ids can begin with.
pub(crate) const PREFIX: &str = "the beginning of an id: up to 64 of A-Z, a-z, 0-9, '.', '_', '-'";

pub(crate) fn is_prefix(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.len() <= 64 && text.bytes().all(plain)
}

fn prefix(text: &str) -> Result<String, String> {
    if is_prefix(text) { Ok(text.to_owned()) } else { Err(PREFIX.to_owned()) }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|invalid: foldstream_core::Invalid| invalid.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_an_aggregate_and_an_id() {
        let name = |text: &str| text.parse::<StreamName>().map(|name| name.to_string());
        assert_eq!(name("credit-notes/C5.36_x-1"), Ok("credit-notes/C5.36_x-1".into()));
        for text in ["", "invoices", "invoices/", "/1", "Invoices/1", "invoices/a b", "a/b/c"] {
            assert!(name(text).is_err_and(|rule| rule.contains("AGGREGATE/ID")), "{text}");
        }
    }
}
