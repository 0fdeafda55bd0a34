//! The store against a real Postgres. One binary, so that Postgres is started once.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests")]

mod accounts;
mod append;
mod carts;
mod cuts;
mod faults;
mod idempotency;
mod outbox;
mod several;
mod snapshots;
