//! The HTTP face of commands, over real sockets and a real Postgres.

mod bad_requests;
mod commands;
mod contract;
mod in_flight;
mod keys;
mod preconditions;
mod proxy;
mod reads;
mod server;
mod tabs;
