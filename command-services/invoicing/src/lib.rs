//! The rules of invoices and credit notes. Pure: no IO, no clock, no randomness.
//!
//! Both are documents that are issued once and never change; the rules they share are in
//! `document`. A document is issued whole, so each aggregate has one command and one event.

mod credit_notes;
mod document;
mod invoices;

pub use credit_notes::{CreditNote, CreditNoteRejection};
pub use document::DocumentRejection;
pub use invoices::{Invoice, InvoiceRejection};
