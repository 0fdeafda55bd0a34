//! Invoices: what was sold.

use crate::documents::{Country, Currency, CustomerId, Line};
use apache_avro::AvroSchema;
use foldstream_core::{Event, Invalid, Timestamp, commands, events, stream_id};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

stream_id! {
    /// An invoice: 1 to 64 of `A-Z a-z 0-9 . _ -`, not beginning with `C`.
    pub struct InvoiceId, check = check_invoice_id;
}

fn check_invoice_id(id: &str) -> Result<(), Invalid> {
    let detail = "the id of an invoice does not begin with \"C\": those are credit notes";
    if id.starts_with('C') { Err(Invalid::new("bad-invoice-id", detail)) } else { Ok(()) }
}

/// Goods were invoiced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event, AvroSchema, JsonSchema)]
#[avro(namespace = "shop.invoices")]
#[serde(deny_unknown_fields)]
pub struct InvoiceIssued {
    /// When the document was issued, no finer than a microsecond.
    pub issued_at: Timestamp,
    /// The customer, when there is one.
    pub customer_id: Option<CustomerId>,
    /// The customer's country.
    pub country: Country,
    /// The currency of all amounts.
    pub currency: Currency,
    /// What was sold, 1 to 5,000 lines.
    #[schemars(length(min = 1, max = 5_000))]
    pub lines: Vec<Line>,
}

events! {
    /// What happened to one invoice.
    pub enum InvoiceEvent on "invoices" of InvoiceId { InvoiceIssued }
}

/// Issues an invoice; the same content again changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IssueInvoice(pub InvoiceIssued);

commands! {
    /// What one invoice can be asked.
    pub enum InvoiceCommand for "invoices" of InvoiceId as "invoice_id" { IssueInvoice creates }
}
