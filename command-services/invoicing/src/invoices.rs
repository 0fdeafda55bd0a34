//! The rules of an invoice: issued once, never changed.

use crate::document::{self, DocumentRejection};
use foldstream_core::{Aggregate, At, Decision, Refusal, Rejection, emit, nothing};
use serde::Serialize;
use shop_schemas::invoices::{InvoiceCommand, InvoiceEvent, InvoiceIssued, IssueInvoice};

/// One invoice.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Invoice {
    /// Not issued yet.
    #[default]
    Absent,
    /// Issued with this content.
    Issued(InvoiceIssued),
}

/// Why an invoice is not issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceRejection {
    /// The id is taken by other content.
    #[error("an invoice with this id and other content exists")]
    Exists,
    /// A rule of every document.
    #[error(transparent)]
    Document(#[from] DocumentRejection),
}

impl Rejection for InvoiceRejection {
    fn refusal(&self) -> Refusal {
        match self {
            InvoiceRejection::Exists => Refusal::Conflict("invoice-exists"),
            InvoiceRejection::Document(rejection) => rejection.refusal(),
        }
    }
    fn pointer(&self) -> Option<String> {
        match self {
            InvoiceRejection::Exists => None,
            InvoiceRejection::Document(rejection) => rejection.pointer(),
        }
    }
}

impl Aggregate for Invoice {
    type Command = InvoiceCommand;
    type Event = InvoiceEvent;
    type Rejection = InvoiceRejection;

    fn decide(&self, command: InvoiceCommand, _: &At) -> Decision<Self> {
        let InvoiceCommand::IssueInvoice(IssueInvoice(content)) = command;
        // What was issued once is repeated even if the rules have become stricter since.
        if matches!(self, Invoice::Issued(before) if *before == content) {
            return Ok(nothing());
        }
        document::check(&content.lines)?;
        match self {
            Invoice::Absent => Ok(emit(content)),
            Invoice::Issued(_) => Err(InvoiceRejection::Exists),
        }
    }

    fn evolve(self, event: &InvoiceEvent) -> Self {
        match event {
            InvoiceEvent::InvoiceIssued(content) => Invoice::Issued(content.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::samples::{country, currency, line};
    use foldstream_core::{StreamId, Uuid, spec::given};
    use proptest::prelude::*;
    use shop_schemas::{documents::CustomerId, invoices::InvoiceId};

    fn of(quantity: i64) -> InvoiceIssued {
        InvoiceIssued {
            issued_at: "2010-12-01T08:26:00Z".parse().unwrap(),
            customer_id: Some(CustomerId::parse("17850").unwrap()),
            country: country(),
            currency: currency(),
            lines: vec![line(quantity, "2.55")],
        }
    }

    #[test]
    fn issuing_for_the_first_time_says_so() {
        given::<Invoice>([]).when(IssueInvoice(of(6))).then([of(6).into()]);
        given::<Invoice>([])
            .when(IssueInvoice(of(6)))
            .then_state(|state| *state == Invoice::Issued(of(6)));
    }
    #[test]
    fn the_same_content_again_changes_nothing() {
        given::<Invoice>([of(6).into()]).when(IssueInvoice(of(6))).then([]);
    }
    #[test]
    fn an_amount_written_in_another_way_is_the_same_content() {
        let mut again = of(6);
        again.lines[0].unit_price = "2.5500".parse().unwrap();
        given::<Invoice>([of(6).into()]).when(IssueInvoice(again)).then([]);
    }
    #[test]
    fn other_content_under_the_same_id_is_refused() {
        let issued = || given::<Invoice>([of(6).into()]);
        issued().when(IssueInvoice(of(7))).then_refused(InvoiceRejection::Exists);
        let anonymous = InvoiceIssued { customer_id: None, ..of(6) };
        issued().when(IssueInvoice(anonymous)).then_refused(InvoiceRejection::Exists);
        assert_eq!(InvoiceRejection::Exists.refusal(), Refusal::Conflict("invoice-exists"));
        assert_eq!(InvoiceRejection::Exists.pointer(), None);
    }
    #[test]
    fn what_can_never_be_is_refused_in_every_state() {
        let expected = || InvoiceRejection::from(DocumentRejection::Quantity { line: 0 });
        given::<Invoice>([]).when(IssueInvoice(of(0))).then_refused(expected());
        given::<Invoice>([of(6).into()]).when(IssueInvoice(of(0))).then_refused(expected());
        assert_eq!(expected().refusal(), Refusal::Invalid("quantity-out-of-range"));
        assert_eq!(expected().pointer().as_deref(), Some("/lines/0/quantity"));
        let empty = InvoiceIssued { lines: Vec::new(), ..of(6) };
        let expected = DocumentRejection::LineCount { found: 0 };
        given::<Invoice>([]).when(IssueInvoice(empty)).then_refused(expected.into());
    }
    #[test]
    fn an_issue_without_a_customer_is_fine() {
        let anonymous = InvoiceIssued { customer_id: None, ..of(6) };
        given::<Invoice>([]).when(IssueInvoice(anonymous.clone())).then([anonymous.into()]);
    }
    #[test]
    fn an_id_made_by_the_server_is_an_invoice_id() {
        for uuid in [Uuid::nil(), Uuid::max(), Uuid::from_u128(0xC)] {
            assert!(InvoiceId::parse(&Invoice::new_id(uuid)).is_ok());
        }
    }
    #[test]
    fn its_id_does_not_begin_with_c() {
        assert_eq!(InvoiceId::parse("C536379").map_err(|e| e.code), Err("bad-invoice-id"));
        assert_eq!(
            <InvoiceId as StreamId>::parse("536365").map(|id| id.to_string()),
            Ok("536365".into())
        );
    }
    #[test]
    fn its_state_reads_well() {
        let json = serde_json::to_value(Invoice::Issued(of(6))).unwrap();
        assert_eq!((&json["status"], &json["lines"][0]["quantity"]), (&"issued".into(), &6.into()));
        assert_eq!(serde_json::to_value(Invoice::Absent).unwrap()["status"], "absent");
    }

    proptest! {
        /// Whatever is asked, in whatever order: at most one event, and it never changes.
        #[test]
        fn a_document_never_changes(quantities in prop::collection::vec(-1_i64..4, 0..12)) {
            let at = At {
                now: foldstream_core::Timestamp::EPOCH,
                actor: "test".into(),
                command_id: foldstream_core::Uuid::nil(),
            };
            let mut state = Invoice::default();
            for quantity in quantities.iter().copied() {
                let before = state.clone();
                let decision = state.decide(IssueInvoice(of(quantity)).into(), &at);
                let events = decision.map(|events| events.0).unwrap_or_default();
                prop_assert!(events.len() <= 1);
                state = events.iter().fold(state, Invoice::evolve);
                prop_assert!(before == Invoice::Absent || state == before);
            }
            let first = quantities.iter().copied().find(|quantity| *quantity >= 1);
            let expected = first.map(of).map_or(Invoice::Absent, Invoice::Issued);
            prop_assert_eq!(state, expected);
        }
    }
}
