//! The application under test: a list of unique tokens with room for only so many, so that there
//! are streams of many events and refusals that depend on what others have just done.

use apache_avro::AvroSchema;
use foldstream::{App, Service};
use foldstream_core::{
    Aggregate, At, Decision, Event, Refusal, Rejection, commands, emit, events, stream_id,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The variable that names the application: several may share one Kafka.
pub const APP_NAME: &str = "LEDGER_APP";
/// Its only service, and its only aggregate.
pub const SERVICE: &str = "ledgers";
/// A new ledger has room for so many tokens, and each extension adds as many.
pub const ROOM: i64 = 20;

stream_id! {
    /// A ledger.
    pub struct LedgerId;
}

/// A token was written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "ledger.ledgers")]
pub struct TokenAppended {
    /// Which one; no two are the same.
    pub token: String,
}
/// There is room for more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "ledger.ledgers")]
pub struct LedgerExtended {
    /// Names the extension; no two are the same.
    pub token: String,
}
events! {
    /// What happened to one ledger.
    pub enum LedgerEvent on "ledgers" of LedgerId { TokenAppended, LedgerExtended }
}

/// Writes a token down; refused while the ledger is full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppendToken(pub TokenAppended);
/// Makes room for more; refused while there is some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExtendLedger(pub LedgerExtended);
commands! {
    /// What one ledger can be asked.
    pub enum LedgerCommand for "ledgers" of LedgerId as "ledger_id" { AppendToken, ExtendLedger }
}

/// A ledger: how many tokens it holds, and how often it was extended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ledger {
    tokens: i64,
    extensions: i64,
}

impl Ledger {
    fn is_full(&self) -> bool {
        self.tokens >= ROOM * (1 + self.extensions)
    }
}

/// Why a ledger says no.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerRejection {
    /// It can take no token.
    #[error("the ledger is full")]
    Full,
    /// It can take one still.
    #[error("the ledger has room")]
    HasRoom,
}

impl Rejection for LedgerRejection {
    fn refusal(&self) -> Refusal {
        match self {
            LedgerRejection::Full => Refusal::Conflict("ledger-full"),
            LedgerRejection::HasRoom => Refusal::Conflict("ledger-has-room"),
        }
    }
}

impl Aggregate for Ledger {
    type Command = LedgerCommand;
    type Event = LedgerEvent;
    type Rejection = LedgerRejection;

    fn decide(&self, command: LedgerCommand, _: &At) -> Decision<Self> {
        match command {
            LedgerCommand::AppendToken(_) if self.is_full() => Err(LedgerRejection::Full),
            LedgerCommand::AppendToken(AppendToken(appended)) => Ok(emit(appended)),
            LedgerCommand::ExtendLedger(_) if !self.is_full() => Err(LedgerRejection::HasRoom),
            LedgerCommand::ExtendLedger(ExtendLedger(extended)) => Ok(emit(extended)),
        }
    }

    fn evolve(mut self, event: &LedgerEvent) -> Self {
        match event {
            LedgerEvent::TokenAppended(_) => self.tokens += 1,
            LedgerEvent::LedgerExtended(_) => self.extensions += 1,
        }
        self
    }
}

/// The application.
#[must_use]
pub fn app() -> App {
    let name = std::env::var(APP_NAME).unwrap_or_else(|_| "ledger".to_owned());
    App::new(name.leak()).service(Service::new(SERVICE).aggregate::<Ledger>())
}
