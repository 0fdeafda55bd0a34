//! Credit notes: what was taken back.

use crate::documents::{Country, Currency, CustomerId, Line};
use apache_avro::AvroSchema;
use foldstream_core::{Event, Invalid, Timestamp, commands, events, stream_id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

stream_id! {
    /// A credit note: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with `C`.
    pub struct CreditNoteId, check = check_credit_note_id;
}

fn check_credit_note_id(id: &str) -> Result<(), Invalid> {
    let detail = "the id of a credit note begins with \"C\"";
    if id.starts_with('C') { Ok(()) } else { Err(Invalid::new("bad-credit-note-id", detail)) }
}

/// Goods were credited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "shop.credit_notes")]
#[serde(deny_unknown_fields)]
pub struct CreditNoteIssued {
    /// When the document was issued, no finer than a microsecond.
    pub issued_at: Timestamp,
    /// The customer, when there is one.
    pub customer_id: Option<CustomerId>,
    /// The customer's country.
    pub country: Country,
    /// The currency of all amounts.
    pub currency: Currency,
    /// What was taken back, 1 to 5,000 lines; quantities are positive.
    #[schemars(length(min = 1, max = 5_000))]
    pub lines: Vec<Line>,
}

events! {
    /// What happened to one credit note.
    pub enum CreditNoteEvent on "credit-notes" of CreditNoteId { CreditNoteIssued }
}

/// Issues a credit note; the same content again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IssueCreditNote(pub CreditNoteIssued);

commands! {
    /// What one credit note can be asked.
    pub enum CreditNoteCommand for "credit-notes" of CreditNoteId as "credit_note_id" {
        IssueCreditNote creates
    }
}
