//! States of streams as they are in the database, kept by the one writer they belong to.

use crate::snapshots::LastSnapshot;
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
    /// The snapshot that it was read from, or that was made of it.
    pub(crate) snapshot: LastSnapshot,
}

impl Cached {
    /// Before anything was read.
    pub(crate) fn nothing(initial: AnyState) -> Self {
        let snapshot = LastSnapshot::default();
        Cached { version: 0, position: 0, state: initial, bytes: 0, stale: true, snapshot }
    }
}

/// Tells about how many bytes a state takes.
pub(crate) type Weigh = Box<dyn Fn(&StreamRef, &AnyState) -> usize + Send>;

/// The least recently used goes first.
pub(crate) struct Cache {
    weigh: Weigh,
    states: HashMap<Arc<StreamRef>, Entry>,
    by_use: BTreeMap<u64, Arc<StreamRef>>,
    uses: u64,
    bytes: usize,
    most_states: usize,
    most_bytes: usize,
}

struct Entry {
    used: u64,
    weight: usize,
    /// Bytes of the events when the state was weighed.
    weighed_at: usize,
    cached: Cached,
}

/// What an entry takes beside its state.
const ENTRY: usize = 400;

impl Cache {
    pub(crate) fn new(most_states: usize, most_bytes: usize, weigh: Weigh) -> Self {
        let (states, by_use) = (HashMap::new(), BTreeMap::new());
        Cache { weigh, states, by_use, uses: 0, bytes: 0, most_states, most_bytes }
    }
    pub(crate) fn get(&mut self, stream: &Arc<StreamRef>) -> Option<&mut Cached> {
        let entry = self.states.get_mut(stream)?;
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(&mut entry.cached)
    }
    pub(crate) fn put(&mut self, stream: Arc<StreamRef>, cached: Cached) {
        let before = self.remove(&stream);
        // Weighing reads the whole state: only when its history has doubled since the last time.
        let (weight, weighed_at) = match before {
            Some(entry) if cached.bytes < entry.weighed_at.saturating_mul(2) => {
                (entry.weight, entry.weighed_at)
            }
            Some(_) | None => (ENTRY + (self.weigh)(&stream, &cached.state), cached.bytes),
        };
        self.uses += 1;
        self.bytes += weight;
        self.by_use.insert(self.uses, stream.clone());
        self.states.insert(stream, Entry { used: self.uses, weight, weighed_at, cached });
        while self.states.len() > self.most_states || self.bytes > self.most_bytes {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some(entry) = self.states.remove(&oldest) {
                self.bytes -= entry.weight;
            }
        }
    }
    /// Forgets a stream.
    pub(crate) fn forget(&mut self, stream: &Arc<StreamRef>) {
        drop(self.remove(stream));
    }
    fn remove(&mut self, stream: &Arc<StreamRef>) -> Option<Entry> {
        let entry = self.states.remove(stream)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.weight;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: usize) -> Arc<StreamRef> {
        Arc::new(StreamRef::new("shop.carts", n.to_string()))
    }
    fn cached(bytes: usize) -> Cached {
        Cached { version: 1, position: 1, bytes, stale: false, ..Cached::nothing(Arc::new(())) }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(2, usize::MAX, Box::new(|_, _| 0));
        cache.put(stream(1), cached(0));
        cache.put(stream(2), cached(0));
        assert!(cache.get(&stream(1)).is_some());
        cache.put(stream(3), cached(0));
        assert!(cache.get(&stream(2)).is_none());
        assert!(cache.get(&stream(1)).is_some() && cache.get(&stream(3)).is_some());
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let mut cache = Cache::new(1_000, 10 * ENTRY, Box::new(|_, _| ENTRY));
        for n in 0..100 {
            cache.put(stream(n), cached(10));
            cache.put(stream(n), cached(11));
        }
        assert!(cache.bytes <= 10 * ENTRY);
        assert_eq!(cache.bytes, cache.states.len() * 2 * ENTRY);
        assert_eq!(cache.states.len(), cache.by_use.len());
        for n in 0..100 {
            cache.forget(&stream(n));
        }
        assert_eq!((cache.bytes, cache.by_use.len()), (0, 0));
    }

    #[test]
    fn a_state_is_weighed_when_its_history_has_doubled() {
        let weighed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = weighed.clone();
        let weigh = move |_: &StreamRef, _: &AnyState| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        };
        let mut cache = Cache::new(10, usize::MAX, Box::new(weigh));
        for bytes in 1..=1_000 {
            cache.put(stream(1), cached(bytes));
        }
        assert_eq!(weighed.load(std::sync::atomic::Ordering::Relaxed), 10);
    }
}
