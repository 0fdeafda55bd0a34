//! States of streams as they are in the database, kept by the one writer they belong to.

use foldstream_core::{AnyState, StreamRef};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A state with its place. What it is worth is checked by its version at the next append.
#[derive(Clone)]
pub(crate) struct Cached {
    pub(crate) version: u64,
    /// The position of the event with that version; 0 without events.
    pub(crate) position: u64,
    pub(crate) state: AnyState,
    /// Bytes of the events it was folded from.
    pub(crate) bytes: usize,
    /// Another writer appended to the stream since.
    pub(crate) stale: bool,
}

/// The least recently used goes first.
pub(crate) struct Cache {
    states: HashMap<Arc<StreamRef>, (u64, Cached)>,
    by_use: BTreeMap<u64, Arc<StreamRef>>,
    uses: u64,
    bytes: usize,
    most_states: usize,
    most_bytes: usize,
}

/// What an entry takes beside its state.
const ENTRY: usize = 400;
/// However long its history, a state is hardly larger.
const LARGEST: usize = 1 << 20;

fn weight(cached: &Cached) -> usize {
    ENTRY + cached.bytes.saturating_mul(2).min(LARGEST)
}

impl Cache {
    pub(crate) fn new(most_states: usize, most_bytes: usize) -> Self {
        let (states, by_use) = (HashMap::new(), BTreeMap::new());
        Cache { states, by_use, uses: 0, bytes: 0, most_states, most_bytes }
    }
    pub(crate) fn get(&mut self, stream: &Arc<StreamRef>) -> Option<&mut Cached> {
        let (used, cached) = self.states.get_mut(stream)?;
        if let Some(key) = self.by_use.remove(used) {
            self.uses += 1;
            *used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(cached)
    }
    pub(crate) fn put(&mut self, stream: Arc<StreamRef>, cached: Cached) {
        self.remove(&stream);
        self.uses += 1;
        self.bytes += weight(&cached);
        self.by_use.insert(self.uses, stream.clone());
        self.states.insert(stream, (self.uses, cached));
        while self.states.len() > self.most_states || self.bytes > self.most_bytes {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some((_, cached)) = self.states.remove(&oldest) {
                self.bytes -= weight(&cached);
            }
        }
    }
    pub(crate) fn remove(&mut self, stream: &Arc<StreamRef>) {
        if let Some((used, cached)) = self.states.remove(stream) {
            self.by_use.remove(&used);
            self.bytes -= weight(&cached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: usize) -> Arc<StreamRef> {
        Arc::new(StreamRef::new("shop.carts", n.to_string()))
    }
    fn cached(bytes: usize) -> Cached {
        Cached { version: 1, position: 1, state: Arc::new(()), bytes, stale: false }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(2, usize::MAX);
        cache.put(stream(1), cached(0));
        cache.put(stream(2), cached(0));
        assert!(cache.get(&stream(1)).is_some());
        cache.put(stream(3), cached(0));
        assert!(cache.get(&stream(2)).is_none());
        assert!(cache.get(&stream(1)).is_some() && cache.get(&stream(3)).is_some());
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let mut cache = Cache::new(1_000, 10 * ENTRY);
        for n in 0..100 {
            cache.put(stream(n), cached(ENTRY));
            cache.put(stream(n), cached(ENTRY / 2));
        }
        assert!(cache.bytes <= 10 * ENTRY);
        assert_eq!(cache.bytes, cache.states.len() * 2 * ENTRY);
        assert_eq!(cache.states.len(), cache.by_use.len());
        for n in 0..100 {
            cache.remove(&stream(n));
        }
        assert_eq!((cache.bytes, cache.by_use.len()), (0, 0));
    }
}
