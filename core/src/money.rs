use crate::Invalid;
use apache_avro::schema::{
    DecimalSchema, InnerDecimalSchema, Name, NamespaceRef, RecordField, Schema,
};
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

/// The scale of every amount: ten-thousandths.
const DECIMALS: usize = 4;
const ONE: i128 = 10_000;
/// What `numeric(28,4)` holds: below 10²⁴ units.
const LIMIT: i128 = 10_i128.pow(28);

/// An exact amount of money with 4 decimals, below 10²⁴ in size; the currency stands beside it.
///
/// In JSON a decimal string (`"2.55"`), in Avro `decimal(28,4)`, in Postgres `numeric(28,4)`.
/// The operators panic past the limit, also in release builds: a fold that overflows is a poison
/// event, never a wrong sum. Rules use the `checked_` forms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(0);

    /// So many ten-thousandths of a unit; `None` past the limit.
    pub const fn from_ten_thousandths(amount: i128) -> Option<Self> {
        if amount > -LIMIT && amount < LIMIT { Some(Money(amount)) } else { None }
    }
    /// So many whole units.
    pub const fn units(units: i64) -> Self {
        Money(units as i128 * ONE)
    }
    /// The amount in ten-thousandths of a unit.
    pub const fn as_ten_thousandths(self) -> i128 {
        self.0
    }
    /// The sum; `None` past the limit.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::from_ten_thousandths(self.0.checked_add(other.0)?)
    }
    /// So many times the amount; `None` past the limit.
    pub fn checked_times(self, times: i64) -> Option<Self> {
        Self::from_ten_thousandths(self.0.checked_mul(i128::from(times))?)
    }
    /// So many times the amount.
    ///
    /// # Panics
    /// Past the limit.
    pub fn times(self, times: i64) -> Self {
        self.checked_times(times).expect("amount out of range")
    }
    fn to_avro_bytes(self) -> Vec<u8> {
        let bytes = self.0.to_be_bytes();
        let sign = if self.0 < 0 { 0xff } else { 0x00 };
        // Two's complement without needless leading bytes, as the Avro specification wants it.
        let needless = |pair: &[u8]| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0;
        let start = bytes.windows(2).take_while(|pair| needless(pair)).count();
        bytes[start..].to_vec()
    }
    fn from_avro_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > 16 {
            return None;
        }
        let mut wide = if bytes[0] & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
        wide[16 - bytes.len()..].copy_from_slice(bytes);
        Self::from_ten_thousandths(i128::from_be_bytes(wide))
    }
}

impl Add for Money {
    type Output = Money;
    fn add(self, other: Money) -> Money {
        self.checked_add(other).expect("amount out of range")
    }
}
impl Sub for Money {
    type Output = Money;
    fn sub(self, other: Money) -> Money {
        self + -other
    }
}
impl Neg for Money {
    type Output = Money;
    fn neg(self) -> Money {
        Money(-self.0)
    }
}
impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::ZERO, Add::add)
    }
}

impl FromStr for Money {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong =
            || Invalid::new("not-an-amount", "an amount is a decimal string such as \"12.50\"");
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(wrong());
        }
        if fraction.len() > DECIMALS {
            let detail = format!("an amount has at most {DECIMALS} decimals");
            return Err(Invalid::new("too-many-decimals", detail));
        }
        let too_large = || Invalid::new("too-large", "an amount has at most 24 digits");
        let whole = whole.trim_start_matches('0');
        if whole.len() > 24 {
            return Err(too_large());
        }
        let parse = |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<i128>() };
        let units = parse(whole).map_err(|_| wrong())?;
        let rest = parse(&format!("{fraction:0<DECIMALS$}")).map_err(|_| wrong())?;
        let amount = units * ONE + rest;
        Self::from_ten_thousandths(if negative { -amount } else { amount }).ok_or_else(too_large)
    }
}

/// With two decimals, or as many more as it takes.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let fraction = format!("{:04}", size % ONE.unsigned_abs());
        let shown = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{}.{}", size / ONE.unsigned_abs(), &fraction[..shown])
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.to_avro_bytes())
        }
    }
}

struct AmountVisitor;
impl de::Visitor<'_> for AmountVisitor {
    type Value = Money;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount as a decimal string with at most 4 decimals, such as \"12.50\"")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Money, E> {
        Money::from_avro_bytes(bytes).ok_or_else(|| E::custom("not a decimal(28,4)"))
    }
}
impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(AmountVisitor)
        } else {
            deserializer.deserialize_bytes(AmountVisitor)
        }
    }
}

impl apache_avro::serde::AvroSchemaComponent for Money {
    fn get_schema_in_ctxt(_: &mut HashSet<Name>, _: NamespaceRef) -> Schema {
        Schema::Decimal(DecimalSchema {
            precision: 28,
            scale: DECIMALS,
            inner: InnerDecimalSchema::Bytes,
        })
    }
    fn get_record_fields_in_ctxt(
        _: &mut HashSet<Name>,
        _: NamespaceRef,
    ) -> Option<Vec<RecordField>> {
        None
    }
}
impl JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> schemars::Schema {
        json_schema!({
            "type": "string", "pattern": r"^-?[0-9]{1,24}(\.[0-9]{1,4})?$",
            "description": "An exact amount as a decimal string with at most 4 decimals.",
            "examples": ["2.55"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_written_with_two_decimals_or_more() {
        let shown = |text: &str| text.parse::<Money>().map(|amount| amount.to_string());
        assert_eq!(shown("0"), Ok("0.00".into()));
        assert_eq!(shown("-2.5"), Ok("-2.50".into()));
        assert_eq!(shown("537808.621"), Ok("537808.621".into()));
        assert_eq!(shown("000.0001"), Ok("0.0001".into()));
    }
    #[test]
    fn refuses_what_is_no_amount() {
        let codes = ["", ".", "1.", ".5", "+1", "1e3", "1,5", " 1", "--1", "٣", "1.23456"]
            .map(|text| text.parse::<Money>().map_err(|e| e.code));
        assert!(codes[..10].iter().all(|code| *code == Err("not-an-amount")), "{codes:?}");
        assert_eq!(codes[10], Err("too-many-decimals"));
        assert_eq!("1".repeat(25).parse::<Money>().map_err(|e| e.code), Err("too-large"));
        assert!("9".repeat(24).parse::<Money>().is_ok());
    }
    #[test]
    fn never_exceeds_what_the_column_holds() {
        let most = format!("{}.9999", "9".repeat(24)).parse::<Money>().unwrap();
        assert_eq!(most.checked_add(Money::units(1)), None);
        assert_eq!(most.checked_times(2), None);
    }
    proptest! {
        #[test]
        fn text_and_avro_bytes_come_back(amount in -LIMIT + 1..LIMIT) {
            let amount = Money(amount);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            prop_assert_eq!(Money::from_avro_bytes(&amount.to_avro_bytes()), Some(amount));
        }
        #[test]
        fn small_amounts_have_short_bytes(amount in -128_i128..128) {
            prop_assert_eq!(Money(amount).to_avro_bytes().len(), 1);
        }
    }
}
