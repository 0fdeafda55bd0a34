//! Where a shop lives: a data directory and a range of ports, both given back at the end.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// What `shop dev` listens on, counted from its port base.
pub const OFFSETS: [u16; 8] = [0, 1, 2, 4, 9, 32, 92, 93];
/// How many ports two bases are apart, at least.
const APART: u16 = 100;
const TRIES: usize = 1_000;

/// A data directory and a free port base.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    /// The port base.
    pub base: u16,
}

impl Place {
    /// A new one.
    ///
    /// # Panics
    /// There is no room on the disk or no free range of ports.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("foldstream-test-").tempdir();
        Self { dir: dir.expect("the directory for temporary files can be written"), base: base() }
    }

    /// Where data are kept.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory of the test's own, removed at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Removes everything. For places that are never dropped; nothing may run in it any more.
    pub fn remove(&self) {
        remove_shadow(&self.data_dir());
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove_shadow(&self.data_dir());
    }
}

/// As root, the children's data lie elsewhere, since an unprivileged user runs them; the directory
/// there names the one that it stands for.
fn remove_shadow(data_dir: &Path) {
    let Some(name) = data_dir.to_str() else { return };
    for entry in fs::read_dir("/var/tmp").into_iter().flatten().flatten() {
        let origin = fs::read_to_string(entry.path().join("origin")).unwrap_or_default();
        if origin.lines().any(|line| line == name) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A port base whose ports are free now and not given to another place of this process.
fn base() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let found = (0..TRIES).map(|_| foldstream_testkit::free_port()).find(|base| {
        given.iter().all(|other| other.abs_diff(*base) >= APART)
            && OFFSETS.iter().all(|offset| free(base + offset))
    });
    let base = found.expect("a machine has some hundred free ports");
    given.push(base);
    base
}
