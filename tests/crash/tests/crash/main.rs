//! A short run of what `cargo x crash` does at length, and the proof that its checker sees.

mod planted;
mod short;
