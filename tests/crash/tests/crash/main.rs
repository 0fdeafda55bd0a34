//! A short run of what `cargo x crash` does at length, and the proof that its checker sees.

// In this order the long one begins first.
mod drawn;
mod planted;
