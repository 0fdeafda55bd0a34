//! The query string and the segments of a path, decoded strictly: what is not valid
//! percent-encoded UTF-8 is refused, never guessed.

use foldstream_service::FieldError;

/// How much of a text from outside is quoted back.
const ECHO: usize = 64;

/// The pairs of a query string in the order given. `+` is a space, as forms write it.
pub(crate) fn pairs(raw: &str) -> Result<Vec<(String, String)>, FieldError> {
    let given = raw.split('&').filter(|pair| !pair.is_empty());
    given
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name =
                decode(name, true).map_err(|fault| fault.at("query", "the name of a parameter"))?;
            let value = decode(value, true).map_err(|fault| fault.at(&echo(&name), "the value"))?;
            Ok((name, value))
        })
        .collect()
}

/// One segment of a path.
pub(crate) fn segment(raw: &str, name: &str) -> Result<String, FieldError> {
    decode(raw, false).map_err(|fault| fault.at(name, "the part of the path"))
}

/// Why a text is not decoded.
struct Fault(&'static str, &'static str);

impl Fault {
    fn at(self, pointer: &str, what: &str) -> FieldError {
        FieldError::new(pointer, self.0, format!("{what} {}", self.1))
    }
}

fn decode(raw: &str, plus_is_space: bool) -> Result<String, Fault> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex_pair(rest.next(), rest.next())
                .ok_or(Fault("bad-encoding", "holds a % without two hex digits after it"))?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Fault("bad-encoding", "is not UTF-8 when decoded"))?;
    if text.contains('\0') {
        return Err(Fault("nul", "holds the character U+0000"));
    }
    Ok(text)
}

fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Percent-encodes all but what every reader takes as it is.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b','
            | b'('
            | b')'
            | b':' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// A text from outside, short enough to be quoted in an answer.
pub(crate) fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_is_valid() {
        let pairs = pairs("a=eq.x%20y&&b=1+2&c=%2B%C3%A9&d").expect("valid");
        let expected = [("a", "eq.x y"), ("b", "1 2"), ("c", "+é"), ("d", "")];
        assert_eq!(pairs.iter().map(|(n, v)| (&**n, &**v)).collect::<Vec<_>>(), expected);
        assert_eq!(segment("a+b%2Fc", "id").ok().as_deref(), Some("a+b/c"));
    }

    #[test]
    fn refuses_what_is_not() {
        for raw in ["a=%zz", "a=%f", "a=%", "%ff=1", "a=%ff", "a=%c3%28", "a=%00", "%00", "a=%+1"] {
            assert!(pairs(raw).is_err(), "{raw}");
        }
        assert!(segment("%00", "id").is_err_and(|e| e.code == "nul"));
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let text = "a b&c=d+e/é%\"'\n";
        let decoded = pairs(&format!("k={}", encode(text))).expect("valid");
        assert_eq!(decoded[0].1, text);
        assert_eq!(echo(&"é".repeat(65)).chars().count(), 65);
    }
}
