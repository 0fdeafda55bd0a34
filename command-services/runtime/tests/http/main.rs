//! The HTTP face of commands, over real sockets and a real Postgres.

mod bad_requests;
mod commands;
mod contract;
mod crowd;
mod expiry;
mod in_flight;
mod keys;
mod large;
mod preconditions;
mod reads;
mod server;
mod tabs;
