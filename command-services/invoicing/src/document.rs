//! The rules that hold for every document, whatever it is called.
//!
//! What a text, an amount or an instant may be is in its type (`shop-schemas`); here is what
//! remains: how many, how much, and the sum.

use foldstream_core::{Money, Refusal, Rejection};
use shop_schemas::documents::Line;
use std::ops::RangeInclusive;

const LINES: RangeInclusive<usize> = 1..=5_000;
const QUANTITY: RangeInclusive<i64> = 1..=1_000_000;
const UNIT_PRICE: RangeInclusive<Money> = Money::ZERO..=Money::units(1_000_000);
const LARGEST_AMOUNT: Money = Money::units(1_000_000_000_000);

/// Why a document can never be issued. Lines count from 0, as in JSON pointers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentRejection {
    /// No lines, or too many.
    #[error("a document has {} to {} lines, not {found}", LINES.start(), LINES.end())]
    LineCount {
        /// How many it has.
        found: usize,
    },
    /// A quantity of none, fewer, or too many.
    #[error("a quantity is {} to {}", QUANTITY.start(), QUANTITY.end())]
    Quantity {
        /// The line, from 0.
        line: usize,
    },
    /// A price below nothing or too high.
    #[error("a unit price is {} to {}", UNIT_PRICE.start(), UNIT_PRICE.end())]
    UnitPrice {
        /// The line, from 0.
        line: usize,
    },
    /// The lines add up to too much.
    #[error("the amount of a document is at most {LARGEST_AMOUNT}")]
    Amount,
}

impl Rejection for DocumentRejection {
    fn refusal(&self) -> Refusal {
        Refusal::Invalid(match self {
            DocumentRejection::LineCount { .. } => "line-count",
            DocumentRejection::Quantity { .. } => "quantity-out-of-range",
            DocumentRejection::UnitPrice { .. } => "unit-price-out-of-range",
            DocumentRejection::Amount => "amount-out-of-range",
        })
    }
    fn pointer(&self) -> Option<String> {
        Some(match self {
            DocumentRejection::LineCount { .. } | DocumentRejection::Amount => "/lines".into(),
            DocumentRejection::Quantity { line } => format!("/lines/{line}/quantity"),
            DocumentRejection::UnitPrice { line } => format!("/lines/{line}/unit_price"),
        })
    }
}

/// Whether a document may have these lines; the first rule that is broken is the answer.
pub(crate) fn check(lines: &[Line]) -> Result<(), DocumentRejection> {
    if !LINES.contains(&lines.len()) {
        return Err(DocumentRejection::LineCount { found: lines.len() });
    }
    let mut amount = Money::ZERO;
    for (line, content) in lines.iter().enumerate() {
        if !QUANTITY.contains(&content.quantity) {
            return Err(DocumentRejection::Quantity { line });
        }
        if !UNIT_PRICE.contains(&content.unit_price) {
            return Err(DocumentRejection::UnitPrice { line });
        }
        amount = content
            .unit_price
            .checked_times(content.quantity)
            .and_then(|of_line| amount.checked_add(of_line))
            .ok_or(DocumentRejection::Amount)?;
    }
    if amount > LARGEST_AMOUNT { Err(DocumentRejection::Amount) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::samples::line;
    use proptest::prelude::*;
    use shop_schemas::documents::amount;

    /// The code and the place of a refusal.
    fn refused(lines: &[Line]) -> Option<(Refusal, String)> {
        check(lines).err().map(|e| (e.refusal(), e.pointer().unwrap_or_default()))
    }
    fn invalid(code: &'static str, pointer: &str) -> Option<(Refusal, String)> {
        Some((Refusal::Invalid(code), pointer.into()))
    }

    #[test]
    fn a_document_has_1_to_5000_lines() {
        assert_eq!(refused(&[]), invalid("line-count", "/lines"));
        assert_eq!(refused(&vec![line(1, "1"); 5_000]), None);
        assert_eq!(refused(&vec![line(1, "1"); 5_001]), invalid("line-count", "/lines"));
    }
    #[test]
    fn a_quantity_is_1_to_a_million() {
        for quantity in [1, 1_000_000] {
            assert_eq!(refused(&[line(quantity, "1")]), None, "{quantity}");
        }
        for quantity in [i64::MIN, -1, 0, 1_000_001, i64::MAX] {
            let lines = [line(1, "1"), line(1, "1"), line(1, "1"), line(quantity, "1")];
            let expected = invalid("quantity-out-of-range", "/lines/3/quantity");
            assert_eq!(refused(&lines), expected, "{quantity}");
        }
    }
    #[test]
    fn a_unit_price_is_0_to_a_million() {
        for price in ["0", "0.0001", "999999.9999", "1000000"] {
            assert_eq!(refused(&[line(1, price)]), None, "{price}");
        }
        for price in ["-0.0001", "1000000.0001", "999999999999999999999999"] {
            let expected = invalid("unit-price-out-of-range", "/lines/1/unit_price");
            assert_eq!(refused(&[line(1, "1"), line(1, price)]), expected, "{price}");
        }
    }
    #[test]
    fn an_amount_is_at_most_a_million_millions() {
        let largest = line(1_000_000, "1000000");
        assert_eq!(refused(std::slice::from_ref(&largest)), None);
        let one_more = [largest.clone(), line(1, "0.0001")];
        assert_eq!(refused(&one_more), invalid("amount-out-of-range", "/lines"));
        assert_eq!(refused(&vec![largest; 5_000]), invalid("amount-out-of-range", "/lines"));
    }
    #[test]
    fn every_refusal_says_what_is_allowed() {
        let said = [
            DocumentRejection::LineCount { found: 0 },
            DocumentRejection::Quantity { line: 0 },
            DocumentRejection::UnitPrice { line: 0 },
            DocumentRejection::Amount,
        ]
        .map(|rejection| rejection.to_string());
        assert_eq!(
            said,
            [
                "a document has 1 to 5000 lines, not 0",
                "a quantity is 1 to 1000000",
                "a unit price is 0.00 to 1000000.00",
                "the amount of a document is at most 1000000000000.00",
            ]
        );
    }

    proptest! {
        /// What is accepted is within every bound, and its amount never overflows.
        #[test]
        fn what_passes_is_within_all_bounds(
            lines in prop::collection::vec((-2_i64..=1_000_002, -2_i64..=1_000_002), 0..9),
        ) {
            let lines: Vec<_> =
                lines.iter().map(|(quantity, price)| line(*quantity, &price.to_string())).collect();
            let within = !lines.is_empty()
                && lines.iter().all(|line| {
                    (1..=1_000_000).contains(&line.quantity)
                        && (Money::ZERO..=Money::units(1_000_000)).contains(&line.unit_price)
                })
                && amount(&lines) <= Money::units(1_000_000_000_000);
            prop_assert_eq!(check(&lines).is_ok(), within);
        }
    }
}

/// Values that the tests of this crate share.
#[cfg(test)]
pub(crate) mod samples {
    use shop_schemas::documents::{Country, Currency, Description, Line, Sku};

    pub(crate) fn line(quantity: i64, unit_price: &str) -> Line {
        Line {
            sku: Sku::parse("85123A").unwrap(),
            description: Description::parse("WHITE HANGING HEART T-LIGHT HOLDER").unwrap(),
            quantity,
            unit_price: unit_price.parse().unwrap(),
        }
    }
    pub(crate) fn country() -> Country {
        Country::parse("United Kingdom").unwrap()
    }
    pub(crate) fn currency() -> Currency {
        Currency::parse("GBP").unwrap()
    }
}
