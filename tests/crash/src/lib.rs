//! Crash tests: real processes under load while links, processes and infrastructure fail, and a
//! checker that shares no code with what it checks.
//!
//! ```text
//! client ──proxy──▶ commands ×2 ──proxy──▶ Postgres ◀──proxy── relay ×2 ──proxy──▶ Kafka
//! ```
//!
//! A seed decides load and faults. After the last heal the checker compares what clients were told
//! ([`history`]) with the tables ([`table`]) and the raw topic ([`topic`]).

pub mod check;
pub mod dice;
pub mod faults;
pub mod history;
pub mod infra;
pub mod ledger;
pub mod load;
pub mod planted;
pub mod report;
pub mod stage;
pub mod table;
pub mod topic;
pub mod watch;
pub mod world;
