//! The published language of the shop: its events, its commands and the values they are made of.
//! One file per aggregate, named after its topic; `documents` holds what invoices and credit notes
//! have in common. The Avro schemas under `avro/` are generated from here (`cargo x schemas`).

#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

pub mod credit_notes;
pub mod documents;
pub mod invoices;

use foldstream_core::{EventSchema, EventSet};

/// Every topic of the shop with the schemas of its events: what is registered and committed.
pub fn topics() -> Vec<(&'static str, &'static [EventSchema])> {
    vec![
        (invoices::InvoiceEvent::TOPIC, invoices::InvoiceEvent::schemas()),
        (credit_notes::CreditNoteEvent::TOPIC, credit_notes::CreditNoteEvent::schemas()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Country, Currency, CustomerId, Description, Line, Sku};
    use crate::invoices::{InvoiceEvent, InvoiceIssued};
    use foldstream_core::{Timestamp, WriterSchema};

    fn issued() -> InvoiceEvent {
        let line = Line {
            sku: Sku::parse("85123A").unwrap(),
            description: Description::parse("WHITE HANGING HEART").unwrap(),
            quantity: 6,
            unit_price: "2.55".parse().unwrap(),
        };
        let issued = InvoiceIssued {
            issued_at: "2010-12-01T08:26:00Z".parse::<Timestamp>().unwrap(),
            customer_id: Some(CustomerId::parse("17850").unwrap()),
            country: Country::parse("United Kingdom").unwrap(),
            currency: Currency::parse("GBP").unwrap(),
            lines: vec![line],
        };
        issued.into()
    }
    fn writer(change: impl Fn(String) -> String) -> WriterSchema {
        let text = InvoiceEvent::schemas()[0].json.to_string();
        WriterSchema::parse(7, &change(text)).unwrap()
    }

    #[test]
    fn an_event_comes_back_from_avro() {
        let datum = issued().encode().unwrap();
        assert_eq!(InvoiceEvent::decode(&writer(|text| text), &datum), Ok(issued()));
    }
    #[test]
    fn an_event_comes_back_through_an_older_schema() {
        // Small numbers have the same bytes in both types; the resolving way is taken.
        let (long, int) =
            (r#""name":"quantity","type":"long""#, r#""name":"quantity","type":"int""#);
        assert!(InvoiceEvent::schemas()[0].json.to_string().contains(long));
        let older = writer(|text| text.replace(long, int));
        assert_eq!(InvoiceEvent::decode(&older, &issued().encode().unwrap()), Ok(issued()));
    }
    #[test]
    fn bytes_that_are_no_such_record_are_refused() {
        let mut datum = issued().encode().unwrap();
        datum.push(0);
        assert!(InvoiceEvent::decode(&writer(|text| text), &datum).is_err());
        datum.truncate(9);
        assert!(InvoiceEvent::decode(&writer(|text| text), &datum).is_err());
        let other = writer(|text| text.replace("InvoiceIssued", "InvoiceLost"));
        assert!(InvoiceEvent::decode(&other, &datum).is_err());
    }
    #[test]
    fn every_schema_has_a_doc_and_the_namespace_of_its_topic() {
        for (topic, schemas) in topics() {
            for schema in schemas {
                let namespace = format!("shop.{}.", topic.replace('-', "_"));
                assert!(schema.full_name.starts_with(&namespace), "{}", schema.full_name);
                assert_eq!(schema.json["doc"], schema.doc);
            }
        }
    }
}
