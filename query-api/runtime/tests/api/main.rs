//! The query side over a real socket against a real Postgres.

#![allow(unreachable_pub, reason = "nobody reaches into a test")]

mod bad_input;
mod exhaustion;
mod faults;
mod harness;
mod pages;
mod reads;
mod sample;
mod tokens;
