//! Query parameters, read strictly: unknown ones and doubled ones are refused.

use std::str::FromStr;

use foldstream_service::{FieldError, Problem, ProblemKind};

/// The parameters of one request; each is one of those that its route knows.
#[derive(Debug)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads the query of a URI.
    ///
    /// # Errors
    /// 400 `invalid-query` for what is not known, given twice or not percent-encoded UTF-8.
    pub(crate) fn read(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut found = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name).unwrap_or_else(|| name.to_owned());
            let Some(name) = known.iter().find(|known| **known == name) else {
                let detail = format!("not known here; known are: {}", known.join(", "));
                return Err(refuse(&shown(&name), "unknown-parameter", &detail));
            };
            if found.iter().any(|(other, _)| other == name) {
                return Err(refuse(name, "duplicate-parameter", "given twice"));
            }
            let value = decoded(value)
                .ok_or_else(|| refuse(name, "not-utf-8", "not percent-encoded UTF-8"))?;
            found.push((*name, value));
        }
        Ok(Self(found))
    }

    /// The value of a parameter as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// A number of digits only, from 1 to `most`.
    ///
    /// # Errors
    /// 400 `invalid-query`.
    pub(crate) fn number(&self, name: &'static str, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = u64::from_str(text).ok().filter(|n| digits && (1..=most).contains(n));
        let wrong = || refuse(name, "out-of-range", &format!("a number from 1 to {most}"));
        number.map(Some).ok_or_else(wrong)
    }
}

/// A query that cannot be answered (400).
pub(crate) fn refuse(name: &str, code: &'static str, detail: &str) -> Problem {
    Problem::new(ProblemKind::InvalidQuery)
        .detail(format!("{name}: {detail}"))
        .error(FieldError::new(name, code, detail))
}

/// A name from outside, as far as it is fit to be shown.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Percent-decoded; a plus stays one, so that `+00:00` can be written as it is.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(query: &str) -> Result<Option<u64>, String> {
        let read = Query::read(Some(query), &["from", "limit"]);
        read.and_then(|query| query.number("limit", 500)).map_err(|e| e.code().to_owned())
    }

    #[test]
    fn numbers_are_plain_and_in_range() {
        assert_eq!(number("limit=1&from=x"), Ok(Some(1)));
        assert_eq!(number("l%69mit=50%30"), Ok(Some(500)));
        assert_eq!(number("from=1&"), Ok(None));
        for value in ["0", "-1", "501", "1e3", "+1", "", "1.0", "%20", "99999999999999999999"] {
            assert_eq!(number(&format!("limit={value}")), Err("invalid-query".into()), "{value}");
        }
    }
    #[test]
    fn what_is_unknown_doubled_or_broken_is_refused() {
        for query in ["page=1", "limit=1&limit=1", "limit=%zz", "limit=%ff", "limit=%f", "=1"] {
            assert_eq!(number(query), Err("invalid-query".into()), "{query}");
        }
    }
    #[test]
    fn a_plus_is_a_plus() {
        let query = Query::read(Some("as_of=10:00+00:00"), &["as_of"]).expect("it is known");
        assert_eq!(query.text("as_of"), Some("10:00+00:00"));
    }
}
