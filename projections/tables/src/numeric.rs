//! Postgres's `numeric` as it travels. Its digits are of base 10,000, so that an amount in
//! ten-thousandths falls into them without any arithmetic on decimals.

use foldstream_core::Money;

const BASE: u128 = 10_000;
const NEGATIVE: u16 = 0x4000;
/// 7 digits before the point and one after it hold every amount.
const DIGITS: usize = 8;

/// Appends the amount.
pub(crate) fn encode(amount: Money, buffer: &mut Vec<u8>) {
    let amount = amount.as_ten_thousandths();
    let mut rest = amount.unsigned_abs();
    let mut digits = [0_u16; DIGITS];
    let mut first = DIGITS;
    while rest > 0 && first > 0 {
        first -= 1;
        // Below BASE, hence within u16.
        digits[first] = (rest % BASE) as u16;
        rest /= BASE;
    }
    let used = &digits[first..];
    let trailing = used.iter().rev().take_while(|digit| **digit == 0).count();
    let used = &used[..used.len() - trailing];
    // The last of all DIGITS stands for 10⁻⁴, the one before it for 10⁰ (weight 0).
    let weight = if used.is_empty() { 0 } else { DIGITS as i16 - 2 - first as i16 };
    let sign = if amount < 0 { NEGATIVE } else { 0 };
    buffer.extend_from_slice(&(used.len() as u16).to_be_bytes());
    buffer.extend_from_slice(&weight.to_be_bytes());
    buffer.extend_from_slice(&sign.to_be_bytes());
    buffer.extend_from_slice(&4_u16.to_be_bytes());
    used.iter().for_each(|digit| buffer.extend_from_slice(&digit.to_be_bytes()));
}

/// The amount of these bytes; `None` when it has more than 4 decimals, is too large or no number.
pub(crate) fn decode(bytes: &[u8]) -> Option<Money> {
    let (head, digits) = bytes.split_at_checked(8)?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, weight, sign) = (word(0), word(2) as i16, word(4));
    if digits.len() != usize::from(count) * 2 || !matches!(sign, 0 | NEGATIVE) {
        return None;
    }
    let mut amount = 0_i128;
    // Weight -1 is the place of the ten-thousandths.
    let mut place = i32::from(weight);
    for digit in digits.chunks_exact(2) {
        let digit = i128::from(u16::from_be_bytes([digit[0], digit[1]]));
        let power = u32::try_from(place + 1).ok();
        match power {
            Some(power) => {
                let value = 10_000_i128.checked_pow(power)?.checked_mul(digit)?;
                amount = amount.checked_add(value)?;
            }
            None if digit == 0 => {}
            None => return None,
        }
        place -= 1;
    }
    Money::from_ten_thousandths(if sign == NEGATIVE { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn amounts_come_back(amount in -(10_i128.pow(28)) + 1..10_i128.pow(28), cut in 0_u32..28) {
            let amount = Money::from_ten_thousandths(amount / 10_i128.pow(cut)).unwrap();
            let mut buffer = Vec::new();
            encode(amount, &mut buffer);
            prop_assert_eq!(decode(&buffer), Some(amount));
        }
    }
    #[test]
    fn broken_bytes_are_no_amount() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0, 1, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(decode(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), None); // NaN
        assert_eq!(decode(&[0, 1, 0xff, 0xfe, 0, 0, 0, 8, 0, 1]), None); // 0.00000001
        assert_eq!(decode(&[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1]), None);
    }
}
