//! The in-memory half of the column merges; `foldstream-tables` writes the same ones in SQL.

use crate::{Column, Date, Money, Timestamp, Value};
use std::cmp::Ordering;
use uuid::Uuid;

/// A column type that can carry `#[sum]`.
#[diagnostic::on_unimplemented(
    message = "a `{Self}` column cannot be summed",
    label = "#[sum] does not work on this type",
    note = "#[sum] works on i32, i64, Money and an Option of these"
)]
pub trait Sum: Column {
    /// Takes in another value.
    ///
    /// # Panics
    /// When the sum is out of range.
    fn add(&mut self, other: Self);
}
impl Sum for i32 {
    fn add(&mut self, other: Self) {
        *self = self.checked_add(other).expect("sum out of range");
    }
}
impl Sum for i64 {
    fn add(&mut self, other: Self) {
        *self = self.checked_add(other).expect("sum out of range");
    }
}
impl Sum for Money {
    fn add(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl<T: Sum> Sum for Option<T> {
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Some(own), Some(other)) => own.add(other),
            (own @ None, other) => *own = other,
            (Some(_), None) => {}
        }
    }
}

/// A column type with an order that is the same in Rust and in Postgres: that of [`Value`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` columns have no order",
    label = "#[min], #[max], #[latest] and #[filter] need a column type with an order",
    note = "every column type but Json<T> has one"
)]
pub trait Ordered: Column {}
impl Ordered for bool {}
impl Ordered for i32 {}
impl Ordered for i64 {}
impl Ordered for Money {}
impl Ordered for Date {}
impl Ordered for Timestamp {}
impl Ordered for Uuid {}
impl Ordered for String {}
impl<T: Ordered> Ordered for Option<T> {}

/// Null takes no part.
pub fn merge_sum<T: Sum>(own: &mut T, other: T) {
    own.add(other);
}
/// Null takes no part.
pub fn merge_min<T: Ordered>(own: &mut T, other: T) {
    let smaller = match (own.value(), other.value()) {
        (_, Value::Null) => false,
        (Value::Null, _) => true,
        (own, other) => other < own,
    };
    if smaller {
        *own = other;
    }
}
/// Null takes no part.
pub fn merge_max<T: Ordered>(own: &mut T, other: T) {
    if other.value() > own.value() {
        *own = other;
    }
}
/// `by` says how the other row's `by` columns compare to our own; on a tie the greater value stays,
/// so that the order of arrival never matters.
pub fn merge_latest<T: Ordered>(by: Ordering, own: &mut T, other: T) {
    match by {
        Ordering::Greater => *own = other,
        Ordering::Equal => merge_max(own, other),
        Ordering::Less => {}
    }
}
/// How the other row's `by` column compares to our own; null is the least.
pub fn by_is_greater<T: Ordered>(other: &T, own: &T) -> Ordering {
    other.value().cmp(&own.value())
}
