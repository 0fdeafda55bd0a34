//! One row per document.

use foldstream_core::{Column, Fold, Money, ReadModel, Recorded, Timestamp};
use shop_schemas::credit_notes::{CreditNoteEvent, CreditNoteId};
use shop_schemas::documents::{Country, Currency, CustomerId, Line, amount, units};
use shop_schemas::invoices::{InvoiceEvent, InvoiceId};

/// Which of the two documents a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Column)]
pub enum DocumentKind {
    /// An invoice.
    Sale,
    /// A credit note.
    Credit,
}

/// One row per document: every invoice and every credit note.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "invoices", version = 1, from(InvoiceEvent, CreditNoteEvent))]
pub struct InvoiceRow {
    /// Id of the invoice, or of the credit note (those begin with C).
    #[key]
    pub invoice_id: String,
    /// sale (an invoice) or credit (a credit note).
    #[filter]
    pub kind: DocumentKind,
    /// When the document was issued, UTC.
    #[filter]
    pub issued_at: Timestamp,
    /// The customer; null when the document names none.
    #[filter]
    pub customer_id: Option<CustomerId>,
    /// Country of the customer.
    #[filter]
    pub country: Country,
    /// Currency of the amount, ISO 4217.
    #[filter]
    pub currency: Currency,
    /// Number of lines of the document.
    #[filter]
    pub lines: i64,
    /// Units over all lines; negative in a credit.
    #[filter]
    pub units: i64,
    /// Sum of quantity × unit price over all lines; negative in a credit.
    #[filter]
    pub amount: Money,
}

/// The number of lines as a column holds it; a document has at most 5,000.
fn count(lines: &[Line]) -> i64 {
    i64::try_from(lines.len()).unwrap_or(i64::MAX)
}

impl Fold<InvoiceEvent> for InvoiceRow {
    fn key(stream: &InvoiceId) -> String {
        stream.to_string()
    }
    fn fold(_: Option<Self>, event: &Recorded<InvoiceEvent>) -> Option<Self> {
        match &event.data {
            InvoiceEvent::InvoiceIssued(invoice) => Some(InvoiceRow {
                invoice_id: event.id.to_string(),
                kind: DocumentKind::Sale,
                issued_at: invoice.issued_at,
                customer_id: invoice.customer_id.clone(),
                country: invoice.country.clone(),
                currency: invoice.currency.clone(),
                lines: count(&invoice.lines),
                units: units(&invoice.lines),
                amount: amount(&invoice.lines),
            }),
        }
    }
}

// No id is that of an invoice and of a credit note: only these begin with C.
impl Fold<CreditNoteEvent> for InvoiceRow {
    fn key(stream: &CreditNoteId) -> String {
        stream.to_string()
    }
    fn fold(_: Option<Self>, event: &Recorded<CreditNoteEvent>) -> Option<Self> {
        match &event.data {
            CreditNoteEvent::CreditNoteIssued(credit) => Some(InvoiceRow {
                invoice_id: event.id.to_string(),
                kind: DocumentKind::Credit,
                issued_at: credit.issued_at,
                customer_id: credit.customer_id.clone(),
                country: credit.country.clone(),
                currency: credit.currency.clone(),
                lines: count(&credit.lines),
                units: -units(&credit.lines),
                amount: -amount(&credit.lines),
            }),
        }
    }
}
