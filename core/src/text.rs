use crate::Invalid;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::RangeInclusive;

/// The name of one stream: the id of an aggregate, also the key of its records.
/// Written with [`stream_id!`](crate::stream_id).
pub trait StreamId: AsRef<str> + Clone + Debug + Eq + Ord + Hash + Send + Sync + 'static {
    /// The id of this text.
    ///
    /// # Errors
    /// When the text breaks the pattern of ids (`bad-id`), or a rule of this kind of id.
    fn parse(text: &str) -> Result<Self, Invalid>;
    /// The id of a text that was checked when it was stored.
    fn stored(text: &str) -> Self;
}

/// The pattern of every stream id: 1 to 64 of `A-Z a-z 0-9 . _ -`, other than `.`, `..` and the
/// reserved `changes`.
///
/// # Errors
/// `bad-id` when the text is none.
pub fn check_stream_id(text: &str) -> Result<(), Invalid> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let reserved = matches!(text, "." | ".." | "changes");
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !reserved {
        return Ok(());
    }
    let detail = "an id has 1 to 64 characters of A-Z a-z 0-9 . _ - \
                  and is neither \".\", \"..\" nor \"changes\"";
    Err(Invalid::new("bad-id", detail))
}

/// Free printable text of so many characters: no control characters, no marks that change the
/// direction of writing.
///
/// # Errors
/// `not-printable` or `bad-length`.
pub fn check_printable(text: &str, characters: RangeInclusive<usize>) -> Result<(), Invalid> {
    let turning = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(|c| c.is_control() || turning(c)) {
        let detail = "the text holds a control character";
        return Err(Invalid::new("not-printable", detail));
    }
    check_text(text, characters)
}

/// Text of so many characters (Unicode scalar values).
///
/// # Errors
/// `bad-length`.
pub fn check_text(text: &str, characters: RangeInclusive<usize>) -> Result<(), Invalid> {
    if characters.contains(&text.chars().count()) {
        return Ok(());
    }
    let (min, max) = (characters.start(), characters.end());
    Err(Invalid::new("bad-length", format!("the text has {min} to {max} characters")))
}

/// The JSON schema of a text type.
#[doc(hidden)]
pub fn text_schema(
    doc: &str,
    characters: RangeInclusive<usize>,
    pattern: Option<&str>,
) -> schemars::Schema {
    let mut schema = schemars::json_schema!({
        "type": "string", "minLength": characters.start(), "maxLength": characters.end(),
    });
    if !doc.is_empty() {
        schema.insert("description".into(), doc.into());
    }
    if let Some(pattern) = pattern {
        schema.insert("pattern".into(), pattern.into());
    }
    schema
}

/// Declares a type of checked text, cheap to clone:
/// `text! { /// What it is.  pub struct Sku, 1..=64, check = |text| check_printable(text, 1..=64);
/// }`.
///
/// It has `parse`, `AsRef<str>`, `Display`, `Column`, JSON, JSON schema (`pattern = "…"` when there
/// is one) and Avro. JSON from outside is checked; what an event holds is a fact and is not.
#[macro_export]
macro_rules! text {
    ($($(#[doc = $doc:literal])+ $vis:vis struct $name:ident, $characters:expr,
        $(pattern = $pattern:literal,)? check = $check:expr;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name(::std::sync::Arc<str>);

        impl $name {
            /// The value of this text.
            ///
            /// # Errors
            /// When the text breaks a rule of the type.
            pub fn parse(text: &str) -> Result<Self, $crate::Invalid> {
                let check: fn(&str) -> Result<(), $crate::Invalid> = $check;
                check(text).map(|()| $name(text.into()))
            }
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str { &self.0 }
        }
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl ::std::str::FromStr for $name {
            type Err = $crate::Invalid;
            fn from_str(text: &str) -> Result<Self, $crate::Invalid> { Self::parse(text) }
        }
        impl $crate::macros::serde::Serialize for $name {
            fn serialize<S: $crate::macros::serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl<'de> $crate::macros::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::macros::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let outside = deserializer.is_human_readable();
                use $crate::macros::serde::Deserialize as _;
                let text = String::deserialize(deserializer)?;
                if outside {
                    Self::parse(&text).map_err($crate::macros::serde::de::Error::custom)
                } else {
                    Ok($name(text.into()))
                }
            }
        }
        impl $crate::macros::apache_avro::serde::AvroSchemaComponent for $name {
            fn get_schema_in_ctxt(
                _: &mut ::std::collections::HashSet<$crate::macros::apache_avro::schema::Name>,
                _: $crate::macros::apache_avro::schema::NamespaceRef,
            ) -> $crate::macros::apache_avro::schema::Schema {
                $crate::macros::apache_avro::schema::Schema::String
            }
            fn get_record_fields_in_ctxt(
                _: &mut ::std::collections::HashSet<$crate::macros::apache_avro::schema::Name>,
                _: $crate::macros::apache_avro::schema::NamespaceRef,
            ) -> Option<Vec<$crate::macros::apache_avro::schema::RecordField>> {
                None
            }
        }
        impl $crate::macros::schemars::JsonSchema for $name {
            fn schema_name() -> ::std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(
                _: &mut $crate::macros::schemars::SchemaGenerator,
            ) -> $crate::macros::schemars::Schema {
                let pattern: Option<&str> = None$(.or(Some($pattern)))?;
                $crate::macros::text_schema(concat!($($doc, "\n"),+).trim(), $characters, pattern)
            }
        }
        impl $crate::Column for $name {
            const TYPE: $crate::ColumnType = $crate::ColumnType::Text;
            fn value(&self) -> $crate::Value<'_> {
                $crate::Value::Text((&*self.0).into())
            }
            fn from_value(value: $crate::Value<'_>) -> Result<Self, $crate::WrongType> {
                <String as $crate::Column>::from_value(value).map(|text| $name(text.into()))
            }
        }
        impl $crate::Ordered for $name {}
    )+};
}

/// Declares a type of stream id: `stream_id! { /// What it is.  pub struct InvoiceId, check = |id|
/// …; }`.
/// The pattern of ids holds for all of them; `check` adds rules of its own.
#[macro_export]
macro_rules! stream_id {
    ($($(#[doc = $doc:literal])+ $vis:vis struct $name:ident
        $(, check = $check:expr)?;)+) => {$(
        $crate::text! {
            $(#[doc = $doc])+
            $vis struct $name, 1..=64, pattern = "^[A-Za-z0-9._-]{1,64}$",
                check = |text| {
                    $crate::check_stream_id(text)?;
                    $(let check: fn(&str) -> Result<(), $crate::Invalid> = $check; check(text)?;)?
                    Ok(())
                };
        }
        impl $crate::StreamId for $name {
            fn parse(text: &str) -> Result<Self, $crate::Invalid> { $name::parse(text) }
            fn stored(text: &str) -> Self { $name(text.into()) }
        }
    )+};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_and_not_reserved() {
        for id in ["536365", "C536379", "a.b_c-D", "...", &"x".repeat(64)] {
            assert_eq!(check_stream_id(id), Ok(()), "{id}");
        }
        for id in ["", ".", "..", "changes", "a/b", "a b", "é", "%2e", &"x".repeat(65), "a\0"] {
            assert_eq!(check_stream_id(id).map_err(|e| e.code), Err("bad-id"), "{id}");
        }
    }
    #[test]
    fn printable_text_has_no_controls() {
        assert_eq!(check_printable("gift, 0001 _20 ", 1..=64), Ok(()));
        for text in ["\0", "a\nb", "\u{7f}", "\u{202e}abc"] {
            assert_eq!(check_printable(text, 1..=64).map_err(|e| e.code), Err("not-printable"));
        }
        assert_eq!(check_printable("", 1..=64).map_err(|e| e.code), Err("bad-length"));
        assert_eq!(check_printable(&"é".repeat(64), 1..=64), Ok(()));
    }
}
