use crate::Invalid;
use apache_avro::schema::{Name, NamespaceRef, RecordField, Schema};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// A day of the calendar.
pub type Date = NaiveDate;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z, in microseconds since 1970.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// An instant in microseconds since 1970 UTC, of the years 1 to 9999: what Postgres can hold, so
/// that nothing is ever rounded. In JSON RFC 3339 with `Z`, in Avro `timestamp-micros`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first instant of 1970.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// So many microseconds since 1970; `None` outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        RANGE.contains(&micros).then_some(Timestamp(micros))
    }
    /// Microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
    /// The same instant as chrono has it.
    pub fn utc(self) -> DateTime<Utc> {
        // Every value in RANGE is one chrono can hold.
        DateTime::from_timestamp_micros(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }
    /// The UTC day.
    pub fn day(self) -> Date {
        self.utc().date_naive()
    }
}

/// Anything finer than a microsecond is cut off; outside the years 1 to 9999 the nearest instant.
impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Timestamp(time.timestamp_micros().clamp(*RANGE.start(), *RANGE.end()))
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let detail = "an instant is RFC 3339 in UTC, such as \"2010-12-01T08:26:00Z\"";
            Invalid::new("not-an-instant", detail)
        };
        let seconds = text.as_bytes().get(17..19).ok_or_else(wrong)?;
        if seconds == b"60" || !matches!(text.as_bytes().get(10), Some(b'T')) {
            return Err(wrong()); // a leap second would become the next one in silence
        }
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        if fraction.bytes().take_while(u8::is_ascii_digit).count() > 6 {
            let detail = "an instant is no finer than a microsecond";
            return Err(Invalid::new("too-fine", detail));
        }
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?;
        if time.offset().local_minus_utc() != 0 {
            return Err(Invalid::new("not-utc", "an instant is in UTC: it ends in \"Z\""));
        }
        let micros = time.timestamp_micros();
        Timestamp::from_micros(micros)
            .ok_or_else(|| Invalid::new("out-of-range", "an instant is of the years 1 to 9999"))
    }
}
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 % 1_000_000 == 0;
        let format = if whole { SecondsFormat::Secs } else { SecondsFormat::Micros };
        f.write_str(&self.utc().to_rfc3339_opts(format, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}
struct InstantVisitor;
impl de::Visitor<'_> for InstantVisitor {
    type Value = Timestamp;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instant as RFC 3339 in UTC, such as \"2010-12-01T08:26:00Z\"")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        text.parse().map_err(E::custom)
    }
}
struct MicrosVisitor;
impl de::Visitor<'_> for MicrosVisitor {
    type Value = Timestamp;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("microseconds since 1970")
    }
    fn visit_i64<E: de::Error>(self, micros: i64) -> Result<Timestamp, E> {
        Timestamp::from_micros(micros).ok_or_else(|| E::custom("outside the years 1 to 9999"))
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(InstantVisitor)
        } else {
            deserializer.deserialize_i64(MicrosVisitor)
        }
    }
}
impl apache_avro::serde::AvroSchemaComponent for Timestamp {
    fn get_schema_in_ctxt(_: &mut HashSet<Name>, _: NamespaceRef) -> Schema {
        Schema::TimestampMicros
    }
    fn get_record_fields_in_ctxt(
        _: &mut HashSet<Name>,
        _: NamespaceRef,
    ) -> Option<Vec<RecordField>> {
        None
    }
}
impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "type": "string", "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$",
            "description": "An instant in UTC, RFC 3339, no finer than a microsecond.",
            "examples": ["2010-12-01T08:26:00Z"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_utc_only_and_no_finer_than_a_microsecond() {
        let code = |text: &str| text.parse::<Timestamp>().map_err(|e| e.code);
        assert_eq!(code("2010-12-01T08:26:00Z"), code("2010-12-01T08:26:00+00:00"));
        assert_eq!(code("2010-12-01T08:26:00+01:00"), Err("not-utc"));
        assert_eq!(code("2010-12-01T08:26:00.1234567Z"), Err("too-fine"));
        for text in ["", "2010-12-01", "2010-12-01 08:26:00Z", "2016-12-31T23:59:60Z", "é"] {
            assert_eq!(code(text), Err("not-an-instant"), "{text}");
        }
        assert_eq!(code("0000-01-01T00:00:00Z"), Err("out-of-range"));
    }
    proptest! {
        #[test]
        fn text_comes_back(micros in RANGE) {
            let time = Timestamp(micros);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(Timestamp::from(time.utc()), time);
        }
    }
}
