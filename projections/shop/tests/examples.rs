//! What single columns mean, by example.
#![allow(clippy::unwrap_used, reason = "a text of the test that does not parse fails it")]

use foldstream_core::{
    AnyReadModel, Decoded, EventSet, ReadModel, Recorded, StreamId, Timestamp, Uuid, read_model,
};
use shop_projections::invoices::{DocumentKind, InvoiceRow};
use shop_projections::sales_by_customer::SalesByCustomer;
use shop_projections::sales_by_product::SalesByProduct;
use shop_schemas::credit_notes::{CreditNoteEvent, CreditNoteIssued};
use shop_schemas::documents::{Country, Currency, CustomerId, Description, Line, Sku};
use shop_schemas::invoices::{InvoiceEvent, InvoiceIssued};

fn recorded<E: EventSet>(id: &str, data: E) -> Decoded {
    let (id, recorded_at) = (E::Id::parse(id).unwrap(), Timestamp::EPOCH);
    let event_id = Uuid::nil();
    Decoded::new(vec![Recorded { id, version: 1, position: 1, event_id, recorded_at, data }])
}
fn line(sku: &str, description: &str, quantity: i64, price: &str) -> Line {
    Line {
        sku: Sku::parse(sku).unwrap(),
        description: Description::parse(description).unwrap(),
        quantity,
        unit_price: price.parse().unwrap(),
    }
}
fn invoice(id: &str, at: &str, country: &str, lines: Vec<Line>) -> Decoded {
    let issued = InvoiceIssued {
        issued_at: at.parse().unwrap(),
        customer_id: Some(CustomerId::parse("17850").unwrap()),
        country: Country::parse(country).unwrap(),
        currency: Currency::parse("GBP").unwrap(),
        lines,
    };
    recorded(id, InvoiceEvent::from(issued))
}
fn credit(id: &str, at: &str, customer: Option<&str>, lines: Vec<Line>) -> Decoded {
    let issued = CreditNoteIssued {
        issued_at: at.parse().unwrap(),
        customer_id: customer.map(|id| CustomerId::parse(id).unwrap()),
        country: Country::parse("EIRE").unwrap(),
        currency: Currency::parse("GBP").unwrap(),
        lines,
    };
    recorded(id, CreditNoteEvent::from(issued))
}
/// The rows of these events, in key order.
fn rows<R: ReadModel>(events: &[Decoded]) -> Vec<R> {
    let mut rows = read_model::<R>().empty();
    events.iter().for_each(|event| rows.apply(event));
    let changes = rows.changes();
    let row = |row| (0..R::TABLE.columns.len()).map(move |column| (row, column));
    let cells = (0..changes.write.rows())
        .map(|n| row(n).map(|(row, column)| changes.write.value(row, column)).collect());
    cells.map(|cells| R::from_values(cells).unwrap()).collect()
}

#[test]
fn a_credit_is_a_row_with_negative_units_and_amount() {
    let events = [
        invoice("536365", "2010-12-01T08:26:00Z", "EIRE", vec![line("a", "", 6, "2.55")]),
        credit(
            "C536379",
            "2010-12-01T09:41:00Z",
            None,
            vec![line("D", "Discount", 1, "27.5"), line("a", "", 2, "2.55")],
        ),
    ];
    let rows: Vec<InvoiceRow> = rows(&events);
    let shown: Vec<_> = rows
        .iter()
        .map(|r| (r.invoice_id.as_str(), r.kind, r.lines, r.units, r.amount.to_string()))
        .collect();
    assert_eq!(
        shown,
        [
            ("536365", DocumentKind::Sale, 1, 6, "15.30".into()),
            ("C536379", DocumentKind::Credit, 2, -3, "-32.60".into()),
        ]
    );
}

#[test]
fn a_description_is_that_of_the_latest_sale_line_that_has_one() {
    let (early, late) = ("2010-12-01T08:00:00Z", "2010-12-02T08:00:00Z");
    let events = [
        invoice("9", late, "EIRE", vec![line("a", "by bytes 9 is after 10", 1, "1")]),
        invoice("10", late, "EIRE", vec![line("a", "not this one", 1, "1")]),
        invoice("99", early, "EIRE", vec![line("a", "too early", 1, "1")]),
        credit("C1", "2011-01-01T00:00:00Z", None, vec![line("a", "a credit", 3, "1")]),
        invoice("11", "2010-12-03T00:00:00Z", "EIRE", vec![line("a", "", 1, "1")]),
        invoice("12", early, "EIRE", vec![line("b", "one", 1, "1"), line("b", "two", 1, "1")]),
        credit("C2", early, None, vec![line("c", "only credited", 3, "1")]),
    ];
    let rows: Vec<SalesByProduct> = rows(&events);
    let shown: Vec<_> = rows
        .iter()
        .map(|r| {
            let description = r.description.as_ref().map(Description::as_str);
            let sold = r.last_sold_at.map(|at| at.to_string());
            (r.sku.as_str(), description, r.units, r.net.to_string(), sold)
        })
        .collect();
    let sold = |at: &str| Some(at.to_owned());
    assert_eq!(
        shown,
        [
            ("a", Some("by bytes 9 is after 10"), 1, "1.00".into(), sold("2010-12-03T00:00:00Z")),
            ("b", Some("two"), 2, "2.00".into(), sold(early)),
            ("c", None, -3, "-3.00".into(), None),
        ]
    );
}

#[test]
fn a_customer_has_the_country_of_the_latest_document_and_unnamed_ones_are_left_out() {
    let events = [
        credit("C2", "2010-12-05T00:00:00Z", Some("17850"), vec![line("a", "", 1, "1")]),
        invoice("1", "2010-12-01T00:00:00Z", "France", vec![line("a", "", 3, "1")]),
        invoice("2", "2010-12-05T00:00:00Z", "Spain", vec![line("a", "", 1, "1")]),
        credit("C3", "2010-12-09T00:00:00Z", None, vec![line("a", "", 1, "1")]),
    ];
    let rows: Vec<SalesByCustomer> = rows(&events);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.country.as_str(), "EIRE", "by (time, id): C2 is after 2");
    assert_eq!((row.invoices, row.credit_notes, row.net.to_string()), (2, 1, "3.00".into()));
    assert_eq!(row.first_seen_at.to_string(), "2010-12-01T00:00:00Z");
    assert_eq!(row.last_seen_at.to_string(), "2010-12-05T00:00:00Z");
}

#[test]
fn names_and_columns_are_those_that_outsiders_rely_on() {
    let shown = |model: &dyn AnyReadModel| {
        let names: Vec<_> = model.table().shown().map(|column| column.name).collect();
        format!("{}: {}", model.table().name, names.join(" "))
    };
    let models = [
        read_model::<InvoiceRow>(),
        read_model::<SalesByProduct>(),
        read_model::<SalesByCustomer>(),
    ];
    let expected = [
        "invoices: invoice_id kind issued_at customer_id country currency lines units amount",
        "sales_by_product: sku currency description units gross credited net last_sold_at",
        "sales_by_customer: customer_id currency country invoices credit_notes net \
         first_seen_at last_seen_at",
    ];
    assert_eq!(models.map(|model| shown(&*model)), expected);
}
