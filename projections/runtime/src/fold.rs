//! Decoding and folding, with the panics of folds caught.

use crate::partition::Slice;
use foldstream_core::{AnyRows, Decoded, Topic, TopicPartition};
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Topics by their full name.
pub(crate) type Topics = HashMap<String, Topic>;

/// A batch that cannot be folded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Poison {
    /// This record cannot be decoded.
    Record { at: TopicPartition, position: u64, reason: String },
    /// Some record of the batch is at fault.
    Batch(String),
}

/// Decodes a batch: one `Decoded` per slice.
pub(crate) fn decode(topics: &Topics, slices: &[Slice]) -> Result<Vec<Decoded>, Poison> {
    let one = |slice: &Slice| {
        let topic = topics.get(&slice.at.topic).ok_or_else(|| {
            Poison::Batch(format!("topic {} is not one the read model reads", slice.at.topic))
        })?;
        let decoded = caught(|| (topic.decode)(&slice.records)).map_err(Poison::Batch)?;
        decoded.map_err(|bad| Poison::Record {
            at: slice.at.clone(),
            position: bad.position,
            reason: bad.cause.to_string(),
        })
    };
    slices.iter().map(one).collect()
}

/// Folds decoded records into rows. After an error the rows are of no use.
pub(crate) fn apply(rows: &mut dyn AnyRows, decoded: &[Decoded]) -> Result<(), Poison> {
    caught(|| decoded.iter().for_each(|batch| rows.apply(batch))).map_err(Poison::Batch)
}

/// What a panic says, as an error. Nothing that `work` changed is looked at after one.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the fold panicked: {}", text.unwrap_or_else(|| "no message".into()))
}
