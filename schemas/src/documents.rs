//! What invoices and credit notes have in common.

use apache_avro::AvroSchema;
use foldstream_core::{Invalid, Money, check_printable, check_stream_id, text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

text! {
    /// A customer: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub struct CustomerId, 1..=64, pattern = "^[A-Za-z0-9._-]{1,64}$", check = check_stream_id;

    /// The name of a country, 1 to 64 printable characters.
    pub struct Country, 1..=64, check = |text| check_printable(text, 1..=64);

    /// A currency, ISO 4217, such as `GBP`.
    pub struct Currency, 3..=3, pattern = "^[A-Z]{3}$", check = check_currency;

    /// A stock-keeping unit: free printable text of 1 to 64 characters; real ones hold spaces.
    pub struct Sku, 1..=64, check = |text| check_printable(text, 1..=64);

    /// What a line sells, in words: at most 200 printable characters, none when it is not known.
    pub struct Description, 0..=200, check = |text| check_printable(text, 0..=200);
}

fn check_currency(text: &str) -> Result<(), Invalid> {
    let known = iso_currency::Currency::from_code(text).is_some();
    let detail = "a currency is a code of ISO 4217, such as \"GBP\"";
    if known { Ok(()) } else { Err(Invalid::new("unknown-currency", detail)) }
}

/// One line of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, AvroSchema, JsonSchema)]
#[avro(namespace = "shop")]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What was sold.
    pub sku: Sku,
    /// The same in words; may be empty.
    pub description: Description,
    /// How many: 1 to 1,000,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub quantity: i64,
    /// Price of one, 0 to 1,000,000 with at most 4 decimals.
    pub unit_price: Money,
}
impl Line {
    /// Quantity × unit price.
    ///
    /// # Panics
    /// When the amount is past what [`Money`] holds; no accepted document has such a line.
    pub fn amount(&self) -> Money {
        self.unit_price.times(self.quantity)
    }
}

/// The sum of quantity × unit price.
///
/// # Panics
/// When the amount is past what [`Money`] holds; no accepted document is.
pub fn amount(lines: &[Line]) -> Money {
    lines.iter().map(Line::amount).sum()
}
/// The sum of the quantities.
pub fn units(lines: &[Line]) -> i64 {
    lines.iter().map(|line| line.quantity).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn currencies_are_those_of_iso_4217() {
        assert!(Currency::parse("GBP").is_ok());
        for text in ["gbp", "XYZ", "", "GBPX"] {
            assert_eq!(Currency::parse(text).map_err(|e| e.code), Err("unknown-currency"));
        }
    }
}
