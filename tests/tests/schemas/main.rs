//! Schemas as they change: two releases at once, and roles and tools before a registry that is
//! broken, away or of another opinion.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests")]

mod one;
mod registry;
mod tools;
mod two;
mod versions;
