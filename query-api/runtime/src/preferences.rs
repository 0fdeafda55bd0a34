//! The request headers that shape an answer: `Accept`, `Prefer`, `Consistency-Token`,
//! `If-None-Match`.

use foldstream_core::{ConsistencyToken, InvalidToken};
use foldstream_service::{FieldError, Problem, ProblemKind};
use http::header::{ACCEPT, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};
use std::time::Duration;

/// Positions a client has seen; see [`ConsistencyToken`].
pub const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// How long a token waits at most.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// `Prefer` (RFC 7240); preferences that are not known here are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// How long a token may wait.
    pub(crate) wait: Duration,
    /// `handling=lenient`: rather an answer from before than none.
    pub(crate) lenient: bool,
    /// `count=exact`: how many rows there are in all.
    pub(crate) count: bool,
}

impl Preferences {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let (mut wait, mut handling, mut count) = (None, None, None);
        for header in headers.get_all(PREFER) {
            let text = header.to_str().map_err(|_| bad("prefer", "the header is not ASCII"))?;
            for preference in text.split(',') {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                let value = value.trim().trim_matches('"').to_owned();
                // Of a preference that is given twice the first counts.
                match name.trim().to_ascii_lowercase().as_str() {
                    "wait" => drop(wait.get_or_insert(value)),
                    "handling" => drop(handling.get_or_insert(value)),
                    "count" => drop(count.get_or_insert(value)),
                    _ => {}
                }
            }
        }
        Ok(Preferences {
            wait: wait.as_deref().map_or(Ok(DEFAULT_WAIT), seconds)?,
            lenient: handling.as_deref() == Some("lenient"),
            count: count.as_deref() == Some("exact"),
        })
    }
}

fn seconds(text: &str) -> Result<Duration, Problem> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        let limit = MAX_WAIT.as_secs();
        let detail = format!("wait is a whole number of seconds; more than {limit} are {limit}");
        return Err(bad("prefer", &detail));
    }
    // Too many digits for a number are more than the limit, too.
    Ok(text.parse().map_or(MAX_WAIT, |s| Duration::from_secs(s).min(MAX_WAIT)))
}

fn bad(header: &str, detail: &str) -> Problem {
    let error = FieldError::new(header, "bad-value", detail);
    Problem::new(ProblemKind::InvalidHeader).error(error)
}

/// The token of the request; an empty one asks for nothing.
pub(crate) fn token(headers: &HeaderMap) -> Result<ConsistencyToken, Problem> {
    let mut given = headers.get_all(CONSISTENCY_TOKEN).iter();
    let Some(value) = given.next() else { return Ok(ConsistencyToken::default()) };
    if given.next().is_some() {
        return Err(bad(CONSISTENCY_TOKEN.as_str(), "the header is given more than once"));
    }
    let text = value.to_str().map_err(|_| InvalidToken::Malformed);
    text.and_then(ConsistencyToken::parse).map_err(|fault| {
        let error = FieldError::new(CONSISTENCY_TOKEN.as_str(), "bad-value", fault.to_string());
        Problem::new(ProblemKind::TokenInvalid).error(error)
    })
}

/// Refuses a request that takes no JSON.
pub(crate) fn accepts_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut given = headers.get_all(ACCEPT).iter().peekable();
    if given.peek().is_none() {
        return Ok(());
    }
    let ranges = given.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    // The most specific range that fits decides.
    let best = ranges.filter_map(json_range).max_by_key(|(specific, _)| *specific);
    match best {
        Some((_, true)) => Ok(()),
        Some((_, false)) | None => Err(Problem::new(ProblemKind::NotAcceptable)
            .detail("application/json can be answered here, nothing else")),
    }
}

/// How specifically a media range takes in JSON, and whether it wants it (`q` above 0).
fn json_range(range: &str) -> Option<(u8, bool)> {
    let mut parts = range.split(';').map(str::trim);
    let specific = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" => 2,
        "application/*" => 1,
        "*/*" => 0,
        _ => return None,
    };
    let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
    Some((specific, q.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0))))
}

/// Whether the client has this representation already (weak comparison, as RFC 9110 asks).
pub(crate) fn has_seen(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given
        .flat_map(|text| text.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|v| HeaderValue::from_str(v).expect("a test header"));
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn preferences_are_read_and_unknown_ones_ignored() {
        let of = |values: &[&str]| Preferences::of(&headers(PREFER, values));
        let nothing = Preferences { wait: DEFAULT_WAIT, lenient: false, count: false };
        assert_eq!(of(&[]).ok(), Some(nothing));
        assert_eq!(of(&["respond-async, handling=strict", "count=planned"]).ok(), Some(nothing));
        let all = of(&["Wait=\"3\", wait=1; x", "handling=lenient,count=exact"]).ok();
        let wait = Duration::from_secs(3);
        assert_eq!(all, Some(Preferences { wait, lenient: true, count: true }));
        for (text, seconds) in [("wait=0", 0), ("wait=9", 5), ("wait=99999999999999999999", 5)] {
            assert_eq!(of(&[text]).map(|p| p.wait.as_secs()).ok(), Some(seconds), "{text}");
        }
        for text in ["wait=x", "wait", "wait=-1", "wait=1e3", "wait=0.5", "wait= "] {
            assert!(of(&[text]).is_err_and(|p| p.code() == "invalid-header"), "{text}");
        }
    }

    #[test]
    fn only_who_takes_json_is_answered() {
        let ok = |values: &[&str]| accepts_json(&headers(ACCEPT, values)).is_ok();
        assert!(ok(&[]) && ok(&["*/*"]) && ok(&["text/csv, application/json;q=0.1"]));
        assert!(ok(&["application/*"]) && ok(&["text/html", "APPLICATION/JSON; charset=utf-8"]));
        assert!(!ok(&["text/csv"]) && !ok(&["application/json;q=0, */*"]) && !ok(&[""]));
    }

    #[test]
    fn etags_are_compared_weakly() {
        let seen = |values: &[&str]| has_seen(&headers(IF_NONE_MATCH, values), "W/\"a\"");
        assert!(seen(&["\"a\""]) && seen(&["\"x\", W/\"a\""]) && seen(&["*"]));
        assert!(!seen(&["\"b\""]) && !seen(&[]) && !seen(&["a"]));
    }
}
