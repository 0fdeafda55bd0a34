//! The laws of read models, one line per model and law.

use foldstream_core::{Money, Timestamp, read_model};
use foldstream_testkit::laws::{self, History, history};
use proptest::prelude::*;
use proptest::sample::select;
use shop_projections::invoices::InvoiceRow;
use shop_projections::sales_by_customer::SalesByCustomer;
use shop_projections::sales_by_day::SalesByDay;
use shop_projections::sales_by_product::SalesByProduct;
use shop_schemas::credit_notes::{CreditNoteEvent, CreditNoteId, CreditNoteIssued};
use shop_schemas::documents::{Country, Currency, CustomerId, Description, Line, Sku};
use shop_schemas::invoices::{InvoiceEvent, InvoiceId, InvoiceIssued};

#[test]
fn sales_by_day_merges_in_any_order() {
    laws::additive::<SalesByDay>();
}
#[test]
fn sales_by_product_merges_in_any_order() {
    laws::additive::<SalesByProduct>();
}
#[test]
fn sales_by_customer_merges_in_any_order() {
    laws::additive::<SalesByCustomer>();
}
#[test]
fn invoices_follow_from_their_streams_alone() {
    laws::folds(&read_model::<InvoiceRow>(), histories());
}
#[test]
fn sales_by_day_follow_from_the_streams_alone() {
    laws::folds(&read_model::<SalesByDay>(), histories());
}
#[test]
fn sales_by_product_follow_from_the_streams_alone() {
    laws::folds(&read_model::<SalesByProduct>(), histories());
}
#[test]
fn sales_by_customer_follow_from_the_streams_alone() {
    laws::folds(&read_model::<SalesByCustomer>(), histories());
}

/// Few ids, customers, skus and moments, so that rows meet and ties are common.
fn histories() -> impl Strategy<Value = Vec<History>> {
    let invoices = prop::collection::vec((id(), prop::collection::vec(issued(), 1..3)), 0..6);
    let credits = prop::collection::vec((id(), prop::collection::vec(issued(), 1..3)), 0..4);
    (invoices, credits).prop_map(|(invoices, credits)| {
        let invoices = invoices.into_iter().map(|(id, documents)| {
            let id = InvoiceId::parse(&id.to_string()).expect("digits");
            (id, documents.into_iter().map(InvoiceEvent::from).collect())
        });
        let credits = credits.into_iter().map(|(id, documents)| {
            let id = CreditNoteId::parse(&format!("C{id}")).expect("C and digits");
            (id, documents.into_iter().map(credit).collect())
        });
        vec![history::<InvoiceEvent>(invoices), history::<CreditNoteEvent>(credits)]
    })
}
fn id() -> impl Strategy<Value = u32> {
    select(vec![9, 10, 100, 536_365, 536_366])
}
fn credit(invoice: InvoiceIssued) -> CreditNoteEvent {
    let InvoiceIssued { issued_at, customer_id, country, currency, lines } = invoice;
    CreditNoteIssued { issued_at, customer_id, country, currency, lines }.into()
}
fn issued() -> impl Strategy<Value = InvoiceIssued> {
    let moment = select(vec![0_i64, 1, 86_399_999_999, 86_400_000_000]);
    let customer = select(vec![None, Some("17850"), Some("12583")]);
    let country = select(vec!["United Kingdom", "EIRE", "France"]);
    let currency = select(vec!["GBP", "EUR"]);
    (moment, customer, country, currency, prop::collection::vec(line(), 1..4)).prop_map(
        |(moment, customer, country, currency, lines)| InvoiceIssued {
            issued_at: Timestamp::from_micros(moment).expect("1970"),
            customer_id: customer.map(|id| CustomerId::parse(id).expect("digits")),
            country: Country::parse(country).expect("a country"),
            currency: Currency::parse(currency).expect("a currency"),
            lines,
        },
    )
}
fn line() -> impl Strategy<Value = Line> {
    let sku = select(vec!["85123A", "85123a", "gift 20"]);
    let description = select(vec!["", "HEART", "heart", "é"]);
    let price = prop_oneof![0_i128..30_000, Just(10_000_000_000)];
    (sku, description, 1..1_000_000_i64, price).prop_map(|(sku, description, quantity, price)| {
        Line {
            sku: Sku::parse(sku).expect("a sku"),
            description: Description::parse(description).expect("a description"),
            quantity,
            unit_price: Money::from_ten_thousandths(price).expect("a price"),
        }
    })
}
