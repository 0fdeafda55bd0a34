//! How much memory the decoder asks for, whatever the bytes say: counted, in a process of its own.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests")]

#[allow(dead_code, reason = "what is tried here is made here")]
#[path = "../../fuzz/src/decode.rs"]
mod decode;

use decode::{ThingEvent, WRITERS};
use foldstream_core::EventSet;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

// Safety: every call goes to the system's allocator as it came; counting allocates nothing.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = NOW.try_with(|now| {
            now.set(now.get() + layout.size());
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
        });
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // What another thread allocated may be given back here.
        let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(layout.size())));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that is held while the bytes are read, in bytes.
fn peak(writer: usize, datum: &[u8]) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    drop(ThingEvent::decode(&WRITERS[writer], datum));
    PEAK.get() - before
}

/// One mebibyte whatever the bytes are, and a multiple of what they weigh: the library's form of a
/// value is large.
fn bound(datum: &[u8]) -> usize {
    (1 << 20) + 256 * datum.len()
}

#[test]
fn memory_is_bounded_by_the_bytes() {
    // The first use makes the schemas; that is not counted.
    for writer in 0..WRITERS.len() {
        peak(writer, &[]);
    }
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for writer in 0..WRITERS.len() {
        for prefix in [&[][..], &[0], &[0, 0], &[2], &[2, 2]] {
            let mut datum = prefix.to_vec();
            datum.extend(huge);
            assert!(peak(writer, &datum) <= bound(&datum), "writer {writer}");
            // A claim of 2²⁰ items, or of so many bytes, with nothing behind it.
            let mut datum = prefix.to_vec();
            datum.extend([0x80, 0x80, 0x80, 0x01]);
            assert!(peak(writer, &datum) <= bound(&datum), "writer {writer}");
        }
        for _ in 0..2_000 {
            let length = random() as usize % 64;
            let datum: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            let held = peak(writer, &datum);
            assert!(held <= bound(&datum), "writer {writer}, {datum:02x?}: {held} bytes");
        }
    }
    // Sound and as costly as it can be: an array of arrays of booleans, one byte each.
    let items = 400_000_u64;
    let mut datum = vec![0x02];
    let mut count = items << 1;
    while count > 0x7f {
        datum.push((count & 0x7f) as u8 | 0x80);
        count >>= 7;
    }
    datum.push(count as u8);
    datum.extend(std::iter::repeat_n(1, items as usize));
    datum.extend([0, 0]);
    let held = peak(5, &datum);
    assert!(held > 400_000, "the bytes were decoded: {held}");
    assert!(held <= bound(&datum), "{held} bytes for {}", datum.len());
}
