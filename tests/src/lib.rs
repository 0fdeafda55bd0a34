//! What the system tests are made of: the shop as child processes, a client, an oracle that shares
//! no code with the shop, and strangers that read its topics.

pub mod api;
pub mod documents;
pub mod models;
pub mod oracle;
pub mod place;
pub mod process;
pub mod python;
pub mod raw;
pub mod shop;
pub mod sockets;
pub mod sql;

use std::path::{Path, PathBuf};

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sample: one month of real sales.
#[must_use]
pub fn sample() -> PathBuf {
    root().join("shop/sample/online-retail/2010-12.csv.gz")
}
