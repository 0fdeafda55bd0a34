//! Everything against a real Kafka; one broker serves all, each test has topics of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod consumer;
mod outage;
mod registry;
mod relay;
mod sharing;
mod support;
mod topics;
mod verify;
mod wire;
