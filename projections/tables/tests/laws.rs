//! SQL and memory agree, for every column type and every merge.

#[allow(dead_code, reason = "shared with the other tests")]
mod models;

use foldstream_core::read_model;
use foldstream_testkit::laws::{self, History, history};
use models::{Everything, NoteEvent, NoteId, NoteRow, NoteTorn, NoteWritten};
use proptest::prelude::*;
use proptest::sample::select;

#[test]
fn every_merge_of_every_type_is_the_same_in_sql() {
    laws::additive::<Everything>();
}

#[test]
fn a_keyed_model_follows_from_its_streams_alone() {
    laws::folds(&read_model::<NoteRow>(), notes());
}

fn notes() -> impl Strategy<Value = Vec<History>> {
    let written = select(vec!["", "a", "it's", "\\", "é😀"])
        .prop_map(|text| NoteEvent::from(NoteWritten { text: text.into() }));
    let torn = Just(NoteEvent::from(NoteTorn { how: "apart".into() }));
    let events = prop::collection::vec(prop_oneof![3 => written, 1 => torn], 0..6);
    let id = (0..6_u32).prop_map(|id| NoteId::parse(&format!("n{id}")).expect("an id"));
    prop::collection::vec((id, events), 0..8)
        .prop_map(|streams| vec![history::<NoteEvent>(streams)])
}
