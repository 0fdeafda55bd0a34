//! Bank accounts for the tests of the store: an aggregate that asks for snapshots.

use crate::carts::Cart;
use apache_avro::AvroSchema;
use foldstream_core::{
    Aggregate, At, Decision, Event, Events, Refusal, Rejection, Snapshots, Timestamp, Uuid,
    aggregate, commands, emit, events, stream_id,
};
use foldstream_postgres::{EventStore, Execute, Expected, Metadata, StoreOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// So many events are folded before the next snapshot.
pub const EVERY: u64 = 7;

stream_id! {
    /// An account.
    pub struct AccountId, check = |_| Ok(());
}

/// Money came in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.accounts")]
pub struct Deposited {
    /// Cents.
    pub amount: i64,
    /// What for.
    pub note: String,
}
/// Money went out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "test.accounts")]
pub struct Withdrawn {
    /// Cents.
    pub amount: i64,
}

events! {
    /// What happened to an account.
    pub enum AccountEvent on "accounts" of AccountId { Deposited, Withdrawn }
}

/// Puts money in, in so many parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deposit {
    /// Cents of each part.
    pub amount: i64,
    /// How many events.
    pub parts: usize,
}
/// Takes money out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Withdraw {
    /// Cents.
    pub amount: i64,
}

commands! {
    /// What an account can be asked.
    pub enum AccountCommand for "accounts" of AccountId as "account_id" { Deposit, Withdraw }
}

/// An account. Whatever happened to it, and in which order, shows in its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub balance: i64,
    pub events: u64,
    pub digest: u64,
    pub notes: BTreeMap<String, i64>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountRejection {
    #[error("only {0} cents are left")]
    TooLittle(i64),
}
impl Rejection for AccountRejection {
    fn refusal(&self) -> Refusal {
        match self {
            AccountRejection::TooLittle(_) => Refusal::Conflict("too-little"),
        }
    }
}

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;
    const SNAPSHOTS: Option<Snapshots<Self>> = Some(Snapshots::every(EVERY, 2));

    fn decide(&self, command: AccountCommand, _: &At) -> Decision<Self> {
        match command {
            AccountCommand::Deposit(Deposit { amount, parts }) => {
                let note = |n| format!("note \"{}\"\0", (self.events + n as u64) % 5);
                let part = |n| Deposited { amount, note: note(n) }.into();
                Ok(Events((0..parts).map(part).collect()))
            }
            AccountCommand::Withdraw(Withdraw { amount }) if amount > self.balance => {
                Err(AccountRejection::TooLittle(self.balance))
            }
            AccountCommand::Withdraw(Withdraw { amount }) => Ok(emit(Withdrawn { amount })),
        }
    }
    fn evolve(mut self, event: &AccountEvent) -> Self {
        let amount = match event {
            AccountEvent::Deposited(Deposited { amount, note }) => {
                *self.notes.entry(note.clone()).or_default() += amount;
                *amount
            }
            AccountEvent::Withdrawn(Withdrawn { amount }) => -amount,
        };
        self.balance += amount;
        self.events += 1;
        self.digest = (self.digest ^ amount as u64).wrapping_mul(0x0100_0000_01b3);
        self
    }
}

/// A store of accounts and carts, as another process would open it.
pub async fn open(options: StoreOptions) -> EventStore {
    crate::carts::open_with(options, vec![aggregate::<Account>(), aggregate::<Cart>()]).await
}

pub fn command(account: &str, command: impl Into<AccountCommand>) -> Execute {
    Execute {
        aggregate: "accounts",
        stream_id: account.into(),
        command: Arc::new(command.into()),
        expected: Expected::Any,
        creates: false,
        at: At { now: Timestamp::EPOCH, actor: "test".into(), command_id: Uuid::new_v4() },
        idempotency: None,
        metadata: Metadata::default(),
        deadline: Duration::from_secs(20),
    }
}
pub fn deposit(account: &str, amount: i64) -> Execute {
    command(account, Deposit { amount, parts: 1 })
}
pub fn withdraw(account: &str, amount: i64) -> Execute {
    command(account, Withdraw { amount })
}
