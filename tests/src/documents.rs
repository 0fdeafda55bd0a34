//! Documents to post.

use foldstream_testkit::unique;
use serde_json::{Value, json};

/// An invoice of one line, sound in every respect.
#[must_use]
pub fn invoice(id: &str) -> Value {
    json!({
        "invoice_id": id, "issued_at": "2010-12-01T08:26:00Z", "customer_id": "17850",
        "country": "United Kingdom", "currency": "GBP", "lines": [line()],
    })
}

/// A credit note of one line.
#[must_use]
pub fn credit_note(id: &str) -> Value {
    let mut body = invoice(id);
    body["credit_note_id"] = id.into();
    if let Some(members) = body.as_object_mut() {
        members.remove("invoice_id");
    }
    body
}

/// A line.
#[must_use]
pub fn line() -> Value {
    json!({
        "sku": "85123A", "description": "WHITE HANGING HEART T-LIGHT HOLDER",
        "quantity": 6, "unit_price": "2.55",
    })
}

/// An id that nobody has used: an invoice's.
#[must_use]
pub fn new_id() -> String {
    unique("T")
}
