//! The rules of a credit note: issued once, never changed.

use crate::document::{self, DocumentRejection};
use foldstream_core::{Aggregate, At, Decision, Refusal, Rejection, Uuid, emit, nothing};
use serde::Serialize;
use shop_schemas::credit_notes::{
    CreditNoteCommand, CreditNoteEvent, CreditNoteIssued, IssueCreditNote,
};

/// One credit note.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum CreditNote {
    /// Not issued yet.
    #[default]
    Absent,
    /// Issued with this content.
    Issued(CreditNoteIssued),
}

/// Why a credit note is not issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreditNoteRejection {
    /// The id is taken by other content.
    #[error("a credit note with this id and other content exists")]
    Exists,
    /// A rule of every document.
    #[error(transparent)]
    Document(#[from] DocumentRejection),
}

impl Rejection for CreditNoteRejection {
    fn refusal(&self) -> Refusal {
        match self {
            CreditNoteRejection::Exists => Refusal::Conflict("credit-note-exists"),
            CreditNoteRejection::Document(rejection) => rejection.refusal(),
        }
    }
    fn pointer(&self) -> Option<String> {
        match self {
            CreditNoteRejection::Exists => None,
            CreditNoteRejection::Document(rejection) => rejection.pointer(),
        }
    }
}

impl Aggregate for CreditNote {
    type Command = CreditNoteCommand;
    type Event = CreditNoteEvent;
    type Rejection = CreditNoteRejection;

    fn decide(&self, command: CreditNoteCommand, _: &At) -> Decision<Self> {
        let CreditNoteCommand::IssueCreditNote(IssueCreditNote(content)) = command;
        // What was issued once is repeated even if the rules have become stricter since.
        if matches!(self, CreditNote::Issued(before) if *before == content) {
            return Ok(nothing());
        }
        document::check(&content.lines)?;
        match self {
            CreditNote::Absent => Ok(emit(content)),
            CreditNote::Issued(_) => Err(CreditNoteRejection::Exists),
        }
    }

    fn evolve(self, event: &CreditNoteEvent) -> Self {
        match event {
            CreditNoteEvent::CreditNoteIssued(content) => CreditNote::Issued(content.clone()),
        }
    }

    /// Credit notes are told from invoices by the `C` that their ids begin with.
    fn new_id(uuid: Uuid) -> String {
        format!("C{uuid}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::samples::{country, currency, line};
    use foldstream_core::{StreamId, spec::given};
    use proptest::prelude::*;
    use shop_schemas::{credit_notes::CreditNoteId, documents::CustomerId};

    fn of(quantity: i64) -> CreditNoteIssued {
        CreditNoteIssued {
            issued_at: "2010-12-01T08:26:00Z".parse().unwrap(),
            customer_id: Some(CustomerId::parse("17850").unwrap()),
            country: country(),
            currency: currency(),
            lines: vec![line(quantity, "2.55")],
        }
    }

    #[test]
    fn issuing_for_the_first_time_says_so() {
        given::<CreditNote>([]).when(IssueCreditNote(of(6))).then([of(6).into()]);
        given::<CreditNote>([])
            .when(IssueCreditNote(of(6)))
            .then_state(|state| *state == CreditNote::Issued(of(6)));
    }
    #[test]
    fn the_same_content_again_changes_nothing() {
        given::<CreditNote>([of(6).into()]).when(IssueCreditNote(of(6))).then([]);
    }
    #[test]
    fn an_amount_written_in_another_way_is_the_same_content() {
        let mut again = of(6);
        again.lines[0].unit_price = "2.5500".parse().unwrap();
        given::<CreditNote>([of(6).into()]).when(IssueCreditNote(again)).then([]);
    }
    #[test]
    fn other_content_under_the_same_id_is_refused() {
        let issued = || given::<CreditNote>([of(6).into()]);
        issued().when(IssueCreditNote(of(7))).then_refused(CreditNoteRejection::Exists);
        let anonymous = CreditNoteIssued { customer_id: None, ..of(6) };
        issued().when(IssueCreditNote(anonymous)).then_refused(CreditNoteRejection::Exists);
        assert_eq!(CreditNoteRejection::Exists.refusal(), Refusal::Conflict("credit-note-exists"));
        assert_eq!(CreditNoteRejection::Exists.pointer(), None);
    }
    #[test]
    fn what_can_never_be_is_refused_in_every_state() {
        let expected = || CreditNoteRejection::from(DocumentRejection::Quantity { line: 0 });
        given::<CreditNote>([]).when(IssueCreditNote(of(0))).then_refused(expected());
        given::<CreditNote>([of(6).into()]).when(IssueCreditNote(of(0))).then_refused(expected());
        assert_eq!(expected().refusal(), Refusal::Invalid("quantity-out-of-range"));
        assert_eq!(expected().pointer().as_deref(), Some("/lines/0/quantity"));
        let empty = CreditNoteIssued { lines: Vec::new(), ..of(6) };
        let expected = DocumentRejection::LineCount { found: 0 };
        given::<CreditNote>([]).when(IssueCreditNote(empty)).then_refused(expected.into());
    }
    #[test]
    fn an_issue_without_a_customer_is_fine() {
        let anonymous = CreditNoteIssued { customer_id: None, ..of(6) };
        given::<CreditNote>([]).when(IssueCreditNote(anonymous.clone())).then([anonymous.into()]);
    }
    #[test]
    fn an_id_made_by_the_server_is_a_credit_note_id() {
        for uuid in [Uuid::nil(), Uuid::max()] {
            assert!(CreditNoteId::parse(&CreditNote::new_id(uuid)).is_ok());
        }
    }
    #[test]
    fn its_id_begins_with_c() {
        let refused = <CreditNoteId as StreamId>::parse("536379").map_err(|e| e.code);
        assert_eq!(refused, Err("bad-credit-note-id"));
        assert!(CreditNoteId::parse("C536379").is_ok());
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
            let mut state = CreditNote::default();
            for quantity in quantities.iter().copied() {
                let before = state.clone();
                let decision = state.decide(IssueCreditNote(of(quantity)).into(), &at);
                let events = decision.map(|events| events.0).unwrap_or_default();
                prop_assert!(events.len() <= 1);
                state = events.iter().fold(state, CreditNote::evolve);
                prop_assert!(before == CreditNote::Absent || state == before);
            }
            let first = quantities.iter().copied().find(|quantity| *quantity >= 1);
            let expected = first.map(of).map_or(CreditNote::Absent, CreditNote::Issued);
            prop_assert_eq!(state, expected);
        }
    }
}
