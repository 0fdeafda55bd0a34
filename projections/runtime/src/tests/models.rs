//! Accounts: a keyed read model that looks at its row and removes it, and an additive one.

use apache_avro::AvroSchema;
use foldstream_core::{
    AnyReadModel, Contribute, Event, Fold, Money, ReadModel, Recorded, events, read_model,
    stream_id,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

stream_id! {
    /// An account.
    pub(crate) struct AccountId, check = |_| Ok(());
}

/// Money came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
#[avro(namespace = "test.accounts")]
pub(crate) struct Deposited {
    /// How much; below zero the folds panic.
    pub(crate) amount: Money,
    /// For the total of points, which the table cannot hold past 2⁶³.
    pub(crate) points: i64,
}

/// The account is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema)]
#[avro(namespace = "test.accounts")]
pub(crate) struct Closed {
    /// Why.
    pub(crate) reason: String,
}

events! {
    /// What happens to accounts.
    pub(crate) enum AccountEvent on "accounts" of AccountId { Deposited, Closed }
}

/// One row per open account.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "accounts", version = 1, from(AccountEvent))]
pub(crate) struct AccountRow {
    /// The account.
    #[key]
    pub(crate) account_id: String,
    /// What is in it.
    #[filter]
    pub(crate) balance: Money,
    /// How often money came in.
    pub(crate) deposits: i64,
}
impl Fold<AccountEvent> for AccountRow {
    fn key(stream: &AccountId) -> String {
        stream.to_string()
    }
    fn fold(row: Option<Self>, event: &Recorded<AccountEvent>) -> Option<Self> {
        match &event.data {
            AccountEvent::Deposited(deposited) => {
                assert!(deposited.amount >= Money::ZERO, "a deposit below zero");
                let mut row = row.unwrap_or_else(|| AccountRow {
                    account_id: event.id.to_string(),
                    balance: Money::ZERO,
                    deposits: 0,
                });
                row.balance = row.balance + deposited.amount;
                row.deposits += 1;
                Some(row)
            }
            AccountEvent::Closed(_) => None,
        }
    }
}

/// Totals by the first letter of the account.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "totals", version = 1, from(AccountEvent))]
pub(crate) struct Totals {
    /// First letter.
    #[key]
    pub(crate) letter: String,
    /// Deposits.
    #[sum]
    pub(crate) deposits: i64,
    /// Money.
    #[sum]
    pub(crate) total: Money,
    /// Points.
    #[sum]
    pub(crate) points: i64,
}
impl Contribute<AccountEvent> for Totals {
    fn contribute(event: &Recorded<AccountEvent>) -> Vec<Self> {
        match &event.data {
            AccountEvent::Deposited(deposited) => vec![Totals {
                letter: event.id.as_str().chars().take(1).collect(),
                deposits: 1,
                total: deposited.amount,
                points: deposited.points,
            }],
            AccountEvent::Closed(_) => Vec::new(),
        }
    }
}

pub(crate) fn accounts() -> Arc<dyn AnyReadModel> {
    read_model::<AccountRow>()
}
pub(crate) fn totals() -> Arc<dyn AnyReadModel> {
    read_model::<Totals>()
}
pub(crate) fn deposited(amount: i64) -> Deposited {
    Deposited { amount: Money::units(amount), points: 1 }
}
pub(crate) fn closed() -> Closed {
    Closed { reason: "done".into() }
}
