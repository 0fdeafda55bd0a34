//! The position rule: whatever a topic delivers, each event is taken once and in order.

use super::{STORE, event_id};
use crate::partition::{Partition, Verdict};
use foldstream_core::{Timestamp, TopicPartition, Uuid};
use foldstream_kafka::{Delivered, Malformation, Malformed, Received};
use foldstream_tables::checkpoints::{Checkpoint, PartitionState};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn record(offset: i64, position: u64) -> Received {
    Received {
        partition: 0,
        offset,
        stream_id: "a".into(),
        position,
        version: position,
        event_id: event_id(0, position),
        event_type: "test".into(),
        recorded_at: Timestamp::EPOCH,
        store_id: STORE,
        schema_id: 1,
        datum: vec![0; 10],
        correlation_id: None,
        causation_id: None,
        actor: None,
        traceparent: None,
    }
}
fn malformed(offset: i64, position: Option<u64>) -> Malformed {
    Malformed {
        partition: 0,
        offset,
        reason: Malformation::NoValue,
        stream_id: None,
        position,
        version: None,
        event_id: None,
        store_id: None,
        value: Vec::new(),
    }
}
fn partition(position: u64, offset: Option<i64>) -> (Partition, i64) {
    Partition::new(
        1,
        Checkpoint {
            partition: TopicPartition::new("test.accounts", 0),
            position,
            offset,
            store_id: offset.map(|_| STORE),
            event_id: offset.map(|_| event_id(0, position)),
            epoch: 1,
            attempts: 1,
            state: PartitionState::Running,
            detail: None,
        },
    )
}
/// What a topic that does as it is told delivers, until it is at its end; the positions taken.
fn read(partition: &mut Partition, topic: &[Delivered], from: i64) -> Vec<u64> {
    let mut taken = Vec::new();
    let mut offset = usize::try_from(from).unwrap();
    while let Some(delivered) = topic.get(offset) {
        offset += 1;
        match partition.take(delivered.clone(), Instant::now()) {
            Verdict::Accepted => {
                taken.extend(partition.hand_out(1, 1).iter().map(|record| record.position))
            }
            Verdict::Reread(again) => offset = usize::try_from(again).unwrap(),
            Verdict::Dropped | Verdict::Gap | Verdict::Blocked => {}
        }
    }
    taken
}
fn topic(positions: &[u64]) -> Vec<Delivered> {
    (0..).zip(positions).map(|(offset, position)| record(offset, *position)).map(Ok).collect()
}

proptest! {
    /// Repeats anywhere, records from further on anywhere, a start anywhere.
    #[test]
    fn each_position_is_taken_once_and_in_order(
        extra in prop::collection::vec((0..20_usize, 1..30_u64), 0..20),
        start in 0..20_u64,
    ) {
        let mut positions: Vec<u64> = (1..=20).collect();
        for (at, position) in extra {
            // A further record may stand anywhere, an earlier one only after its first.
            let first = positions.iter().position(|p| *p == position).unwrap_or(0);
            positions.insert(at.max(first + 1).min(positions.len()), position);
        }
        // The same in one line: the record is next, or it is nothing.
        let mut applied = Vec::new();
        for (offset, position) in positions.iter().enumerate() {
            if *position == applied.len() as u64 + 1 {
                applied.push(offset as i64);
            }
        }
        let offset = usize::try_from(start).unwrap().checked_sub(1).map(|at| applied[at]);
        let (mut partition, from) = partition(start, offset);
        let taken = read(&mut partition, &topic(&positions), from);
        let last = applied.len() as u64;
        prop_assert!(taken.iter().copied().eq(start + 1..=last), "{taken:?} of {positions:?}");
    }

    /// A topic that was created again and refilled, shorter or longer, with or without repeats.
    #[test]
    fn a_refilled_topic_is_read_from_where_it_agrees(
        start in 1..20_u64, offset in 0..40_i64, refilled in 0..30_u64, sent_before in 0..9_u64,
    ) {
        // A relay that lost its progress sends from the first position on once more.
        let mut positions: Vec<u64> = (1..=sent_before.min(refilled)).chain(1..=refilled).collect();
        let (mut partition, from) = partition(start, Some(offset));
        // The consumer says so when the offset is past the end.
        let from = if from > positions.len() as i64 { partition.out_of_range(0) } else { from };
        let mut taken = read(&mut partition, &topic(&positions), from);
        if from == positions.len() as i64 {
            // It waits at the end; the next record tells.
            positions.push(refilled + 1);
            taken = read(&mut partition, &topic(&positions), from);
        }
        let last = positions.iter().copied().max().unwrap_or(0);
        prop_assert!(taken.iter().copied().eq(start + 1..=last), "{taken:?} of {positions:?}");
    }
}

#[test]
fn a_gap_is_believed_only_after_the_last_record_was_read_again() {
    let now = Instant::now();
    let (mut partition, from) = partition(3, Some(12));
    assert_eq!(from, 12);
    assert_eq!(partition.take(Ok(record(12, 3)), now), Verdict::Dropped);
    assert_eq!(partition.take(Ok(record(13, 5)), now), Verdict::Reread(12));
    // Still under way from the first reading.
    assert_eq!(partition.take(Ok(record(14, 6)), now), Verdict::Dropped);
    assert!(partition.gap().is_none());
    assert_eq!(partition.take(Ok(record(12, 3)), now), Verdict::Dropped);
    assert_eq!(partition.take(Ok(record(13, 5)), now), Verdict::Gap);
    assert_eq!(partition.take(Ok(record(14, 6)), now), Verdict::Dropped);
    assert_eq!(partition.gap().map(|gap| gap.missing), Some(4));
    assert!(partition.alarm(now - Duration::from_secs(30)).is_none());
    assert!(partition.alarm(now + Duration::from_secs(1)).is_some());
    assert!(partition.alarm(now + Duration::from_secs(1)).is_none(), "once");
    // It is sent again.
    assert_eq!(partition.take(Ok(record(15, 4)), now), Verdict::Accepted);
    assert!(partition.gap().is_none());
}

#[test]
fn what_is_no_event_stops_only_where_the_next_event_should_be() {
    let now = Instant::now();
    let (mut partition, _) = partition(0, None);
    assert_eq!(partition.take(Err(malformed(0, None)), now), Verdict::Dropped);
    assert_eq!(partition.take(Err(malformed(1, Some(7))), now), Verdict::Dropped);
    assert_eq!(partition.take(Ok(record(2, 1)), now), Verdict::Accepted);
    assert_eq!(partition.take(Err(malformed(3, Some(2))), now), Verdict::Blocked);
    assert_eq!(partition.block().map(|block| block.position), Some(2));
    assert_eq!(partition.take(Ok(record(4, 3)), now), Verdict::Dropped);
    assert_eq!(partition.take(Ok(record(5, 2)), now), Verdict::Accepted);
    assert!(partition.block().is_none());
}

#[test]
fn another_store_is_refused_for_good() {
    let now = Instant::now();
    let (mut partition, _) = partition(1, Some(0));
    assert_eq!(partition.take(Ok(record(0, 1)), now), Verdict::Dropped);
    let foreign = Received { store_id: Uuid::max(), ..record(1, 2) };
    assert_eq!(partition.take(Ok(foreign), now), Verdict::Blocked);
    assert!(partition.block().is_some_and(|block| block.reason.contains("another store")));
    assert_eq!(partition.take(Ok(record(2, 2)), now), Verdict::Dropped);
}

#[test]
fn a_batch_has_at_least_one_record_and_at_most_so_many_bytes() {
    let (mut partition, _) = partition(0, None);
    for position in 1..=5 {
        partition.take(Ok(record(position as i64, position)), Instant::now());
    }
    assert_eq!(partition.waiting(), (5, 50));
    assert_eq!(partition.hand_out(10, 5).len(), 1);
    assert_eq!(partition.hand_out(10, 25).len(), 2);
    assert_eq!(partition.hand_out(1, 1000).len(), 1);
    assert_eq!((partition.waiting(), partition.hand_out(9, 99).len()), ((1, 10), 1));
    assert!(partition.hand_out(9, 99).is_empty());
}
