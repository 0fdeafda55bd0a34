//! Sales by day and country.

use foldstream_core::{Contribute, Date, Money, ReadModel, Recorded};
use shop_schemas::credit_notes::CreditNoteEvent;
use shop_schemas::documents::{Country, Currency, amount, units};
use shop_schemas::invoices::InvoiceEvent;

/// Sales by UTC day, country and currency, invoices and credit notes side by side.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "sales_by_day", version = 1, from(InvoiceEvent, CreditNoteEvent))]
pub struct SalesByDay {
    /// UTC day on which the documents were issued.
    #[key]
    pub day: Date,
    /// Country of the customers, as written on the documents.
    #[key]
    pub country: Country,
    /// Currency of the amounts, ISO 4217; amounts of different currencies are never added.
    #[key]
    pub currency: Currency,
    /// Number of invoices issued.
    #[filter]
    #[sum]
    pub invoices: i64,
    /// Number of credit notes issued.
    #[filter]
    #[sum]
    pub credit_notes: i64,
    /// Units sold less units credited.
    #[filter]
    #[sum]
    pub units: i64,
    /// Amount invoiced.
    #[filter]
    #[sum]
    pub gross: Money,
    /// Amount credited, as a positive number.
    #[filter]
    #[sum]
    pub credited: Money,
    /// Amount invoiced less amount credited.
    #[filter]
    #[sum]
    pub net: Money,
}

impl Contribute<InvoiceEvent> for SalesByDay {
    fn contribute(event: &Recorded<InvoiceEvent>) -> Vec<Self> {
        match &event.data {
            InvoiceEvent::InvoiceIssued(invoice) => {
                let amount = amount(&invoice.lines);
                vec![SalesByDay {
                    day: invoice.issued_at.day(),
                    country: invoice.country.clone(),
                    currency: invoice.currency.clone(),
                    invoices: 1,
                    credit_notes: 0,
                    units: units(&invoice.lines),
                    gross: amount,
                    credited: Money::ZERO,
                    net: amount,
                }]
            }
        }
    }
}

impl Contribute<CreditNoteEvent> for SalesByDay {
    fn contribute(event: &Recorded<CreditNoteEvent>) -> Vec<Self> {
        match &event.data {
            CreditNoteEvent::CreditNoteIssued(credit) => {
                let amount = amount(&credit.lines);
                vec![SalesByDay {
                    day: credit.issued_at.day(),
                    country: credit.country.clone(),
                    currency: credit.currency.clone(),
                    invoices: 0,
                    credit_notes: 1,
                    units: -units(&credit.lines),
                    gross: Money::ZERO,
                    credited: amount,
                    net: -amount,
                }]
            }
        }
    }
}
