use crate::{StreamRef, TopicPartition};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The longest text of a token.
const MAX_BYTES: usize = 2 * 1024;
/// How many streams are named; of more only the positions are kept.
const MAX_STREAMS: usize = 8;

/// What a command reached, or a query showed: a query that carries it never answers from before.
///
/// Opaque outside (base64url). Positions belong to an event store, so a token names its stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsistencyToken {
    /// The last position reached in each topic-partition.
    pub positions: BTreeMap<TopicPartition, u64>,
    /// The streams behind the positions, as far as they are known.
    pub streams: BTreeSet<StreamRef>,
    /// The event stores that gave the positions, by topic.
    pub stores: BTreeMap<String, Uuid>,
}

/// A text that is no token of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not a token at all.
    #[error("the text is not a consistency token")]
    Malformed,
    /// Longer than a token can be.
    #[error("a consistency token has at most {MAX_BYTES} bytes")]
    TooLong,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u8,
    t: Vec<OfTopic>,
}
/// Topic, store, (partition, position)…, stream ids.
type OfTopic = (String, Uuid, Vec<(i32, u64)>, Vec<String>);

impl ConsistencyToken {
    /// A token of one position.
    pub fn at(store: Uuid, partition: TopicPartition, position: u64, stream: StreamRef) -> Self {
        ConsistencyToken {
            stores: [(partition.topic.clone(), store)].into(),
            positions: [(partition, position)].into(),
            streams: [stream].into(),
        }
    }
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
    /// Takes in another token: the greater position of each partition stays.
    pub fn merge(&mut self, other: &ConsistencyToken) {
        for (partition, position) in &other.positions {
            let own = self.positions.entry(partition.clone()).or_default();
            *own = (*own).max(*position);
        }
        self.streams.extend(other.streams.iter().cloned());
        self.stores.extend(other.stores.iter().map(|(topic, store)| (topic.clone(), *store)));
    }
    /// The text of the token, at most 2 KiB: streams are left out when there are too many, and
    /// past that the topics last in order.
    pub fn encode(&self) -> String {
        let mut streams = if self.streams.len() > MAX_STREAMS { 0 } else { self.streams.len() };
        let mut topics: Vec<&String> = self.stores.keys().collect();
        loop {
            let text = self.encode_some(&topics, streams);
            if text.len() <= MAX_BYTES || topics.is_empty() {
                return text;
            }
            match streams {
                0 => drop(topics.pop()),
                _ => streams = 0,
            }
        }
    }
    fn encode_some(&self, topics: &[&String], streams: usize) -> String {
        let of_topic = |topic: &String| -> OfTopic {
            let positions = self.positions.iter().filter(|(at, _)| at.topic == *topic);
            let named = self.streams.iter().take(streams).filter(|s| s.topic == *topic);
            (
                topic.clone(),
                self.stores[topic],
                positions.map(|(at, position)| (at.partition, *position)).collect(),
                named.map(|stream| stream.stream_id.clone()).collect(),
            )
        };
        let wire = Wire { v: 1, t: topics.iter().map(|topic| of_topic(topic)).collect() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }
    /// Reads a token's text.
    ///
    /// # Errors
    /// When it is no token, or too long for one.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_BYTES {
            return Err(InvalidToken::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| InvalidToken::Malformed)?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| InvalidToken::Malformed)?;
        if wire.v != 1 {
            return Err(InvalidToken::Malformed);
        }
        let mut token = ConsistencyToken::default();
        for (topic, store, positions, streams) in wire.t {
            if positions.iter().any(|(partition, _)| *partition < 0) {
                return Err(InvalidToken::Malformed);
            }
            for (partition, position) in positions {
                token.positions.insert(TopicPartition::new(topic.clone(), partition), position);
            }
            token.streams.extend(streams.into_iter().map(|id| StreamRef::new(topic.clone(), id)));
            token.stores.insert(topic, store);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(partition: i32, position: u64) -> ConsistencyToken {
        let at = TopicPartition::new("shop.invoices", partition);
        ConsistencyToken::at(Uuid::nil(), at, position, StreamRef::new("shop.invoices", "536365"))
    }
    #[test]
    fn comes_back_from_its_text() {
        assert_eq!(ConsistencyToken::parse(&token(3, 17).encode()), Ok(token(3, 17)));
        let empty = ConsistencyToken::default();
        assert_eq!(ConsistencyToken::parse(&empty.encode()), Ok(empty));
    }
    #[test]
    fn refuses_other_texts() {
        for text in ["", "x", "e30", "%%%", "eyJ2IjoyLCJ0IjpbXX0"] {
            assert_eq!(ConsistencyToken::parse(text), Err(InvalidToken::Malformed), "{text}");
        }
        assert_eq!(ConsistencyToken::parse(&"a".repeat(3000)), Err(InvalidToken::TooLong));
    }
    #[test]
    fn stays_within_its_size() {
        let mut large = ConsistencyToken::default();
        for topic in 0..100 {
            let at = TopicPartition::new(format!("shop.topic-{topic}"), 0);
            let stream = StreamRef::new(at.topic.clone(), "s".repeat(64));
            large.merge(&ConsistencyToken::at(Uuid::nil(), at, 1, stream));
        }
        assert!(large.encode().len() <= MAX_BYTES);
        assert!(ConsistencyToken::parse(&large.encode()).is_ok());
    }
    proptest! {
        #[test]
        fn merging_never_goes_back(a in 0_u64..9, b in 0_u64..9) {
            let mut merged = token(0, a);
            merged.merge(&token(0, b));
            prop_assert_eq!(merged, token(0, a.max(b)));
        }
    }
}
