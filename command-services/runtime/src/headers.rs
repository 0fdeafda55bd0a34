//! The headers of a command, read strictly.

use std::num::NonZeroU64;

use foldstream_core::ConsistencyToken;
use foldstream_service::{FieldError, Problem, ProblemKind};
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};

/// A client's name for one request, so that it can be sent again without a second effect.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// On answers that were given before.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How far the command, or what the client saw before it, has come.
pub(crate) const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
/// Binds together all that follows from one cause.
pub(crate) const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The longest idempotency key, in characters.
pub(crate) const MAX_KEY: usize = 255;
const MAX_CORRELATION_ID: usize = 128;

/// What must be true of the stream before the command is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Nothing.
    None,
    /// It has no events: `If-None-Match: *`.
    Absent,
    /// It has events: `If-Match: *`.
    Present,
    /// It is at this version: `If-Match: "17"`.
    Version(NonZeroU64),
}

/// What the headers of a command say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandHeaders {
    pub(crate) key: Option<String>,
    pub(crate) precondition: Precondition,
    /// What the client has seen; empty when it says nothing.
    pub(crate) token: ConsistencyToken,
    /// `None` where none, or none that is usable, was sent.
    pub(crate) correlation_id: Option<String>,
}

impl CommandHeaders {
    /// Reads the headers.
    ///
    /// # Errors
    /// 400 `invalid-header` or `token-invalid`.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            key: only(headers, &IDEMPOTENCY_KEY)?.map(idempotency_key).transpose()?,
            precondition: precondition(headers)?,
            token: only(headers, &CONSISTENCY_TOKEN)?.map(token).transpose()?.unwrap_or_default(),
            correlation_id: correlation_id(headers),
        })
    }
}

/// The value of a header that may be sent once at most.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse(name, "send it once"));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(refuse(name, "it holds more than printable ASCII")),
    }
}

fn refuse(name: &HeaderName, detail: &str) -> Problem {
    Problem::new(ProblemKind::InvalidHeader)
        .detail(format!("{name}: {detail}"))
        .error(FieldError::new(name.as_str(), "invalid-header", detail))
}

/// A structured-field string (`"abc"`), as the IETF draft has it, or the same bare, as many
/// clients send it.
fn idempotency_key(text: &str) -> Result<String, Problem> {
    let quoted = text.strip_prefix('"');
    let key = match quoted {
        Some(rest) => unquoted(rest),
        None => Some(text.to_owned()),
    };
    let printable = |key: &String| key.bytes().all(|b| (0x20..=0x7e).contains(&b));
    key.filter(|key| (1..=MAX_KEY).contains(&key.len()) && printable(key)).ok_or_else(|| {
        let detail = format!("a key has 1 to {MAX_KEY} printable ASCII characters, quoted or bare");
        refuse(&IDEMPOTENCY_KEY, &detail)
    })
}

/// What stands before the closing quote, which must end the text.
fn unquoted(text: &str) -> Option<String> {
    let mut content = String::with_capacity(text.len());
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(content),
            '\\' => content.push(rest.next().filter(|c| matches!(c, '"' | '\\'))?),
            c => content.push(c),
        }
    }
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let if_match = only(headers, &IF_MATCH)?;
    match (if_match, only(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Present),
        (Some(tag), None) => version(tag)
            .map(Precondition::Version)
            .ok_or_else(|| refuse(&IF_MATCH, "send one version in quotes, such as \"17\", or *")),
        (None, Some("*")) => Ok(Precondition::Absent),
        (None, Some(_)) => Err(refuse(&IF_NONE_MATCH, "only * is known here")),
        (Some(_), Some(_)) => Err(refuse(&IF_NONE_MATCH, "send this or If-Match, not both")),
    }
}

/// The version of one strong entity tag, as `ETag` is answered: `"17"`.
fn version(tag: &str) -> Option<NonZeroU64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    // The database counts in signed numbers.
    let version = digits.parse::<i64>().ok().filter(|_| plain)?;
    NonZeroU64::new(u64::try_from(version).ok()?)
}

fn token(text: &str) -> Result<ConsistencyToken, Problem> {
    ConsistencyToken::parse(text).map_err(|invalid| {
        let detail = invalid.to_string();
        Problem::new(ProblemKind::TokenInvalid).error(FieldError::new(
            CONSISTENCY_TOKEN.as_str(),
            "token-invalid",
            detail,
        ))
    })
}

/// As with `traceparent`, a text that cannot be used is as good as none.
fn correlation_id(headers: &HeaderMap) -> Option<String> {
    let text = only(headers, &X_CORRELATION_ID).ok()??;
    let usable = (1..=MAX_CORRELATION_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic());
    usable.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(sent: &[(&HeaderName, &[u8])]) -> Result<CommandHeaders, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append((*name).clone(), HeaderValue::from_bytes(value).expect("a value"));
        }
        CommandHeaders::read(&headers).map_err(|problem| problem.code().to_owned())
    }
    fn key(text: &[u8]) -> Result<Option<String>, String> {
        read(&[(&IDEMPOTENCY_KEY, text)]).map(|headers| headers.key)
    }
    fn bad<T>() -> Result<T, String> {
        Err("invalid-header".into())
    }

    #[test]
    fn no_headers_ask_for_nothing() {
        let headers = read(&[]).expect("nothing is wrong");
        assert_eq!(headers.precondition, Precondition::None);
        assert_eq!((headers.key, headers.correlation_id), (None, None));
        assert!(headers.token.is_empty());
    }
    #[test]
    fn a_key_is_quoted_or_bare() {
        assert_eq!(key(b"\"a b\""), key(b"a b"));
        assert_eq!(key(b"a b"), Ok(Some("a b".into())));
        assert_eq!(key(br#""say \"hi\" \\""#), Ok(Some(r#"say "hi" \"#.into())));
        assert_eq!(key(&[b'x'; 255]).map(|key| key.map(|key| key.len())), Ok(Some(255)));
        let quoted = format!("\"{}\"", "x".repeat(255));
        assert!(key(quoted.as_bytes()).is_ok());
    }
    #[test]
    fn a_key_that_is_none_is_refused() {
        for text in [
            &b""[..],
            b"\"\"",
            b"\"",
            b"\"a",
            b"\"a\"b",
            br#""a\b""#,
            b"\"a\"; p=1",
            b"a\tb",
            b"\xc3\xa9",
            &[b'x'; 256],
        ] {
            assert_eq!(key(text), bad(), "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(read(&[(&IDEMPOTENCY_KEY, b"a"), (&IDEMPOTENCY_KEY, b"a")]), bad());
    }
    #[test]
    fn preconditions_are_one_version_or_a_star() {
        let asked =
            |name, text: &str| read(&[(name, text.as_bytes())]).map(|headers| headers.precondition);
        let seventeen = NonZeroU64::new(17).expect("not zero");
        assert_eq!(asked(&IF_MATCH, "\"17\""), Ok(Precondition::Version(seventeen)));
        assert_eq!(asked(&IF_MATCH, "*"), Ok(Precondition::Present));
        assert_eq!(asked(&IF_NONE_MATCH, "*"), Ok(Precondition::Absent));
        for text in [
            "",
            "17",
            "\"\"",
            "\"",
            "W/\"17\"",
            "\"17\", \"18\"",
            "\"-1\"",
            "\"+1\"",
            "\"01\"",
            "\"0\"",
            "\"a\"",
            "\"1e3\"",
            "\"9223372036854775808\"",
            "'17'",
            "\" 17\"",
            "**",
        ] {
            assert_eq!(asked(&IF_MATCH, text), bad(), "{text}");
        }
        for text in ["", "\"17\"", "\"*\""] {
            assert_eq!(asked(&IF_NONE_MATCH, text), bad(), "{text}");
        }
        assert_eq!(read(&[(&IF_MATCH, b"\"1\""), (&IF_MATCH, b"\"1\"")]), bad());
        assert_eq!(read(&[(&IF_MATCH, b"\"1\""), (&IF_NONE_MATCH, b"*")]), bad());
    }
    #[test]
    fn a_token_is_one_of_ours() {
        let empty = ConsistencyToken::default().encode();
        assert!(read(&[(&CONSISTENCY_TOKEN, empty.as_bytes())]).is_ok());
        for text in [&b"garbage"[..], b"", &[b'a'; 3000]] {
            assert_eq!(read(&[(&CONSISTENCY_TOKEN, text)]), Err("token-invalid".into()));
        }
    }
    #[test]
    fn a_correlation_id_that_is_none_is_ignored() {
        let asked = |text: &[u8]| read(&[(&X_CORRELATION_ID, text)]).map(|h| h.correlation_id);
        assert_eq!(asked(b"order-17"), Ok(Some("order-17".into())));
        for text in [&b""[..], b"a b", b"\xff", &[b'x'; 129]] {
            assert_eq!(asked(text), Ok(None));
        }
    }
}
