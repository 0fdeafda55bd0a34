use serde::Serialize;
use serde::de::DeserializeOwned;

/// How the states of an aggregate are kept now and then, so that a long stream is not folded from
/// its first event each time. They may be lost at any time: only events count.
///
/// A state is kept as JSON, and only when reading it back gives an equal one. What takes part in
/// no comparison and in no `Serialize` must therefore not matter to `decide` and `evolve`.
pub struct Snapshots<A> {
    policy: SnapshotPolicy,
    encode: fn(&A) -> Result<Vec<u8>, Unkept>,
    decode: fn(&[u8]) -> Result<A, Unkept>,
}

/// When a state is kept, and of which schema it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// After so many events since the last one.
    pub every: u64,
    /// The version of the state's schema; a snapshot of another one is not read.
    pub schema_version: u32,
}

/// Why a state cannot be kept, or a kept one cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// It cannot be written as JSON, or is not the JSON of such a state.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Reading it back gives another state.
    #[error("the state is another one when it is read back")]
    Differs,
    /// The state is of another aggregate: a bug in the caller.
    #[error("a state of another aggregate, or of one without snapshots")]
    Foreign,
}

impl<A: Serialize + DeserializeOwned + PartialEq> Snapshots<A> {
    /// After every so many events, with a state of this schema version. Raise the version whenever
    /// the state's fields, their JSON, or what `evolve` makes of old events changes.
    ///
    /// # Panics
    /// When the number of events is 0.
    pub const fn every(events: u64, schema_version: u32) -> Self {
        assert!(events > 0, "a snapshot stands for one event at least");
        let policy = SnapshotPolicy { every: events, schema_version };
        Snapshots { policy, encode: encode::<A>, decode: decode::<A> }
    }
}

impl<A> Snapshots<A> {
    /// When a state is kept, and of which schema it is.
    pub const fn policy(&self) -> SnapshotPolicy {
        self.policy
    }
    /// The state as it is kept.
    ///
    /// # Errors
    /// When it cannot be written, or would not be read as it is.
    pub fn encode(&self, state: &A) -> Result<Vec<u8>, Unkept> {
        (self.encode)(state)
    }
    /// A kept state.
    ///
    /// # Errors
    /// When these are not the bytes of one.
    pub fn decode(&self, bytes: &[u8]) -> Result<A, Unkept> {
        (self.decode)(bytes)
    }
}

fn encode<A: Serialize + DeserializeOwned + PartialEq>(state: &A) -> Result<Vec<u8>, Unkept> {
    let bytes = serde_json::to_vec(state)?;
    let again: A = serde_json::from_slice(&bytes)?;
    if again == *state { Ok(bytes) } else { Err(Unkept::Differs) }
}
fn decode<A: DeserializeOwned>(bytes: &[u8]) -> Result<A, Unkept> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Whole {
        seats: BTreeMap<u8, String>,
        price: Option<crate::Money>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Forgetful {
        kept: u8,
        #[serde(skip)]
        forgotten: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct BadKeys(BTreeMap<(u8, u8), u8>);

    #[test]
    fn a_state_is_read_back_as_it_was() {
        let snapshots = Snapshots::<Whole>::every(100, 3);
        assert_eq!(snapshots.policy(), SnapshotPolicy { every: 100, schema_version: 3 });
        let price = Some("-0.0001".parse().unwrap());
        let state = Whole { seats: BTreeMap::from([(3, "a\0\"b".into())]), price };
        let bytes = snapshots.encode(&state).unwrap();
        assert_eq!(snapshots.decode(&bytes).unwrap(), state);
        for bad in [&b""[..], b"{", b"{}", b"[1]", b"\xff", &bytes[..bytes.len() - 1]] {
            assert!(matches!(snapshots.decode(bad), Err(Unkept::Json(_))));
        }
    }

    #[test]
    fn a_state_that_would_lose_something_is_not_kept() {
        let snapshots = Snapshots::<Forgetful>::every(1, 1);
        assert!(snapshots.encode(&Forgetful { kept: 1, forgotten: 0 }).is_ok());
        let lossy = snapshots.encode(&Forgetful { kept: 1, forgotten: 2 });
        assert!(matches!(lossy, Err(Unkept::Differs)), "{lossy:?}");
        let bad = Snapshots::<BadKeys>::every(1, 1).encode(&BadKeys([((1, 1), 1)].into()));
        assert!(matches!(bad, Err(Unkept::Json(_))), "{bad:?}");
    }
}
