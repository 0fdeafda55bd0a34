//! Sales by product.

use foldstream_core::{Contribute, Money, ReadModel, Recorded, Timestamp};
use shop_schemas::credit_notes::CreditNoteEvent;
use shop_schemas::documents::{Currency, Description, Sku};
use shop_schemas::invoices::{InvoiceEvent, InvoiceId};

/// Sales by product and currency.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "sales_by_product", version = 1, from(InvoiceEvent, CreditNoteEvent))]
pub struct SalesByProduct {
    /// The stock-keeping unit exactly as the documents give it, capitals and spaces included.
    #[key]
    pub sku: Sku,
    /// Currency of the amounts, ISO 4217; amounts of different currencies are never added.
    #[key]
    pub currency: Currency,
    /// Description on the latest sale line that has one; null when no sale line has.
    #[filter]
    #[latest(by = (described_at, described_in, described_line))]
    pub description: Option<Description>,
    /// When the invoice that gave the description was issued.
    #[hidden]
    pub described_at: Option<Timestamp>,
    /// The invoice that gave the description.
    #[hidden]
    pub described_in: Option<InvoiceId>,
    /// The line of that invoice, from 1.
    #[hidden]
    pub described_line: Option<i32>,
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
    /// When the product was last sold, UTC; null when it was only ever credited.
    #[filter]
    #[max]
    pub last_sold_at: Option<Timestamp>,
}

impl Contribute<InvoiceEvent> for SalesByProduct {
    fn contribute(event: &Recorded<InvoiceEvent>) -> Vec<Self> {
        match &event.data {
            InvoiceEvent::InvoiceIssued(invoice) => (1..)
                .zip(&invoice.lines)
                .map(|(number, line)| {
                    let described = !line.description.as_str().is_empty();
                    let amount = line.amount();
                    SalesByProduct {
                        sku: line.sku.clone(),
                        currency: invoice.currency.clone(),
                        description: described.then(|| line.description.clone()),
                        described_at: described.then_some(invoice.issued_at),
                        described_in: described.then(|| event.id.clone()),
                        described_line: described.then_some(number),
                        units: line.quantity,
                        gross: amount,
                        credited: Money::ZERO,
                        net: amount,
                        last_sold_at: Some(invoice.issued_at),
                    }
                })
                .collect(),
        }
    }
}

impl Contribute<CreditNoteEvent> for SalesByProduct {
    fn contribute(event: &Recorded<CreditNoteEvent>) -> Vec<Self> {
        match &event.data {
            CreditNoteEvent::CreditNoteIssued(credit) => credit
                .lines
                .iter()
                .map(|line| {
                    let amount = line.amount();
                    SalesByProduct {
                        sku: line.sku.clone(),
                        currency: credit.currency.clone(),
                        description: None,
                        described_at: None,
                        described_in: None,
                        described_line: None,
                        units: -line.quantity,
                        gross: Money::ZERO,
                        credited: amount,
                        net: -amount,
                        last_sold_at: None,
                    }
                })
                .collect(),
        }
    }
}
