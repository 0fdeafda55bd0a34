//! Sales by customer.

use foldstream_core::{Contribute, Money, ReadModel, Recorded, Timestamp};
use shop_schemas::credit_notes::CreditNoteEvent;
use shop_schemas::documents::{Country, Currency, CustomerId, amount};
use shop_schemas::invoices::InvoiceEvent;

/// Sales by customer and currency. Documents that name no customer are left out.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "sales_by_customer", version = 1, from(InvoiceEvent, CreditNoteEvent))]
pub struct SalesByCustomer {
    /// The customer.
    #[key]
    pub customer_id: CustomerId,
    /// Currency of the amount, ISO 4217; amounts of different currencies are never added.
    #[key]
    pub currency: Currency,
    /// Country on the customer's latest document in this currency.
    #[filter]
    #[latest(by = (last_seen_at, last_document))]
    pub country: Country,
    /// Number of invoices.
    #[filter]
    #[sum]
    pub invoices: i64,
    /// Number of credit notes.
    #[filter]
    #[sum]
    pub credit_notes: i64,
    /// Amount invoiced less amount credited.
    #[filter]
    #[sum]
    pub net: Money,
    /// When the first document of either kind was issued, UTC.
    #[filter]
    #[min]
    pub first_seen_at: Timestamp,
    /// When the latest document of either kind was issued, UTC.
    #[filter]
    #[max]
    pub last_seen_at: Timestamp,
    /// Id of the latest document.
    #[hidden]
    pub last_document: String,
}

impl Contribute<InvoiceEvent> for SalesByCustomer {
    fn contribute(event: &Recorded<InvoiceEvent>) -> Vec<Self> {
        match &event.data {
            InvoiceEvent::InvoiceIssued(invoice) => {
                let row = |customer_id: &CustomerId| SalesByCustomer {
                    customer_id: customer_id.clone(),
                    currency: invoice.currency.clone(),
                    country: invoice.country.clone(),
                    invoices: 1,
                    credit_notes: 0,
                    net: amount(&invoice.lines),
                    first_seen_at: invoice.issued_at,
                    last_seen_at: invoice.issued_at,
                    last_document: event.id.to_string(),
                };
                invoice.customer_id.iter().map(row).collect()
            }
        }
    }
}

impl Contribute<CreditNoteEvent> for SalesByCustomer {
    fn contribute(event: &Recorded<CreditNoteEvent>) -> Vec<Self> {
        match &event.data {
            CreditNoteEvent::CreditNoteIssued(credit) => {
                let row = |customer_id: &CustomerId| SalesByCustomer {
                    customer_id: customer_id.clone(),
                    currency: credit.currency.clone(),
                    country: credit.country.clone(),
                    invoices: 0,
                    credit_notes: 1,
                    net: -amount(&credit.lines),
                    first_seen_at: credit.issued_at,
                    last_seen_at: credit.issued_at,
                    last_document: event.id.to_string(),
                };
                credit.customer_id.iter().map(row).collect()
            }
        }
    }
}
