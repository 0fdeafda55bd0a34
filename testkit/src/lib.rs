//! Real Postgres and Kafka for tests, a proxy for bad links, and oracles.
//!
//! A test takes what it needs and cleans up by dropping it:
//!
//! ```no_run
//! # async fn test() {
//! let kafka = &foldstream_testkit::infra().kafka;
//! let database = foldstream_testkit::database("orders").await;
//! let app = foldstream_testkit::unique("shop");
//! # let _ = (kafka, &database.url, app);
//! # }
//! ```

mod infra;
pub mod laws;
pub mod proxy;
mod wait;

pub use foldstream_local::free_port;
pub use infra::{Infra, TestDatabase, binary, database, infra, unique};
pub use wait::{Seen, eventually};
