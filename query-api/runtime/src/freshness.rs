//! How fresh an answer is, as headers; and whether it is fresh enough for a token.

use crate::model::Model;
use crate::preferences::CONSISTENCY_TOKEN;
use foldstream_core::{ConsistencyToken, TopicPartition};
use foldstream_service::{Problem, ProblemKind};
use foldstream_tables::{PartitionSnapshot, Snapshot, checkpoints::PartitionState};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value as Json};

const POSITION: HeaderName = HeaderName::from_static("read-model-position");
const LAG: HeaderName = HeaderName::from_static("read-model-lag");

/// `Read-Model-Position`, `Read-Model-Lag` and `Consistency-Token`, which takes in the one given.
pub(crate) fn headers(
    snapshot: &Snapshot,
    given: &ConsistencyToken,
) -> Vec<(HeaderName, HeaderValue)> {
    let positions: Vec<String> =
        snapshot.partitions.iter().map(|p| format!("{}={}", p.partition, p.position)).collect();
    let lag = lag_seconds(snapshot).map_or_else(|| "unknown".to_owned(), lag_text);
    let texts =
        [(POSITION, positions.join(", ")), (LAG, lag), (CONSISTENCY_TOKEN, token(snapshot, given))];
    let valid = |(name, text): (HeaderName, String)| {
        // Topics are of plain characters; a header that cannot be said is left out.
        HeaderValue::from_str(&text).ok().map(|value| (name, value))
    };
    texts.into_iter().filter_map(valid).collect()
}

fn token(snapshot: &Snapshot, given: &ConsistencyToken) -> String {
    let mut token = ConsistencyToken::default();
    for seen in snapshot.partitions.iter().filter(|p| p.position > 0) {
        if let Some(store) = seen.store_id {
            token.stores.insert(seen.partition.topic.clone(), store);
            token.positions.insert(seen.partition.clone(), seen.position);
        }
    }
    token.merge(given);
    token.encode()
}

/// Age of the oldest event that is not folded yet, at most, in seconds; `None` when the heads of
/// the topics are not known.
pub(crate) fn lag_seconds(snapshot: &Snapshot) -> Option<f64> {
    let now = snapshot.now.as_micros();
    let of = |p: &PartitionSnapshot| {
        let since = match p.head? <= p.position {
            true => now,
            false => p.last_event_at.or(p.updated_at)?.as_micros(),
        };
        Some(now.saturating_sub(since).max(0) as f64 / 1e6)
    };
    let lags: Option<Vec<f64>> = snapshot.partitions.iter().map(of).collect();
    lags?.into_iter().reduce(f64::max)
}

/// To the millisecond, without needless zeros.
fn lag_text(seconds: f64) -> String {
    let text = format!("{seconds:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a token asks of one read model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Required {
    /// Positions to be reached; topics that the model does not read are left out.
    pub(crate) positions: Vec<(TopicPartition, u64)>,
    stores: Vec<(String, foldstream_core::Uuid)>,
}

/// Whether a snapshot is what a token asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Yes,
    NotYet,
    /// Never: the positions are of another event store.
    OtherStore,
}

impl Required {
    pub(crate) fn of(token: &ConsistencyToken, model: &Model) -> Self {
        let read = |topic: &String| model.topics.contains(topic);
        let positions = token.positions.iter().filter(|(at, _)| read(&at.topic));
        let stores = token.stores.iter().filter(|(topic, _)| read(topic));
        Required {
            positions: positions.map(|(at, position)| (at.clone(), *position)).collect(),
            stores: stores.map(|(topic, store)| (topic.clone(), *store)).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(crate) fn reached(&self, snapshot: &Snapshot) -> Reached {
        let other = |(topic, store): &(String, foldstream_core::Uuid)| {
            let known = snapshot.partitions.iter().filter(|p| p.partition.topic == *topic);
            known.filter_map(|p| p.store_id).any(|own| own != *store)
        };
        if self.stores.iter().any(other) {
            return Reached::OtherStore;
        }
        let reached = |(at, position): &(TopicPartition, u64)| snapshot.position(at) >= *position;
        if self.positions.iter().all(reached) { Reached::Yes } else { Reached::NotYet }
    }

    /// Why the read model is not where the token asks: the place, and what stands in the way.
    pub(crate) fn behind(&self, snapshot: Option<&Snapshot>) -> Problem {
        let at = |at: &TopicPartition| snapshot.map_or(0, |s| s.position(at));
        let mut required = Map::new();
        let mut current = Map::new();
        let mut reason = if snapshot.is_none() { "rebuilding" } else { "behind" };
        for (partition, position) in &self.positions {
            required.insert(partition.to_string(), (*position).into());
            current.insert(partition.to_string(), at(partition).into());
            if at(partition) >= *position {
                continue;
            }
            let known = snapshot.into_iter().flat_map(|s| &s.partitions);
            match known.into_iter().find(|p| p.partition == *partition).map(|p| p.state) {
                Some(PartitionState::Failed) => reason = "failed",
                Some(PartitionState::Gap) if reason != "failed" => reason = "gap",
                Some(PartitionState::Gap | PartitionState::Running) | None => {}
            }
        }
        let detail = match reason {
            "failed" => "an event could not be folded; the read model waits for an operator",
            "gap" => "an event is missing in the topic; later ones wait for it",
            "rebuilding" => "the read model is being built",
            _ => "the read model has not folded the events of the token yet",
        };
        let lag = snapshot.and_then(lag_seconds).map_or(Json::Null, Json::from);
        Problem::new(ProblemKind::ReadModelBehind)
            .detail(detail)
            .member("reason", reason)
            .member("required", required)
            .member("current", current)
            .member("lag_seconds", lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldstream_core::Timestamp;

    fn partition(n: i32, position: u64, head: Option<u64>) -> PartitionSnapshot {
        PartitionSnapshot {
            partition: TopicPartition::new("shop.invoices", n),
            position,
            store_id: None,
            state: PartitionState::Running,
            last_event_at: Timestamp::from_micros(1_000_000),
            updated_at: None,
            head,
        }
    }

    #[test]
    fn lag_is_that_of_the_partition_most_behind_and_unknown_without_heads() {
        let snapshot = |partitions| Snapshot {
            build: 1,
            version: 1,
            now: Timestamp::from_micros(4_200_000).expect("a time"),
            partitions,
        };
        let lag = |partitions| lag_seconds(&snapshot(partitions)).map(lag_text);
        assert_eq!(
            lag(vec![partition(0, 5, Some(5)), partition(1, 2, Some(1))]).as_deref(),
            Some("0")
        );
        let behind = vec![partition(0, 5, Some(5)), partition(1, 2, Some(3))];
        assert_eq!(lag(behind).as_deref(), Some("3.2"));
        assert_eq!(lag(vec![partition(0, 5, Some(5)), partition(1, 2, None)]), None);
        assert_eq!(lag(vec![]), None);
    }
}
