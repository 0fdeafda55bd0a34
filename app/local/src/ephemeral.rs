//! Infrastructure that leaves nothing behind: for tests and benchmarks.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use nix::unistd::Uid;
use uuid::Uuid;

use crate::place::{create_private, require_ours, try_lock};
use crate::{Local, LocalError, Options, Progress, kafka, postgres};

impl Local {
    /// Starts both on free ports over a new directory, which is removed when this is dropped.
    /// First clears away what earlier processes could not, because they were killed.
    ///
    /// # Errors
    /// As [`Local::start`].
    pub fn ephemeral(progress: &mut dyn FnMut(Progress)) -> Result<Self, LocalError> {
        Self::ephemeral_with(|_| {}, progress)
    }

    /// The same with other options; their directory is chosen here.
    ///
    /// # Errors
    /// As [`Local::start`].
    pub fn ephemeral_with(
        change: impl FnOnce(&mut Options),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, LocalError> {
        let home = home()?;
        clear_leftovers(&home);
        let data_dir = home.join(Uuid::now_v7().simple().to_string());
        // After a failure the logs stay, until the next run clears them away.
        let mut options = Options::in_dir(&data_dir);
        change(&mut options);
        options.data_dir = data_dir;
        let mut local = Self::start(options, progress)?;
        local.discard = true;
        Ok(local)
    }
}

/// The one ephemeral infrastructure of this process: started at the first call, ended and removed
/// when the process exits.
///
/// # Errors
/// As [`Local::start`]; the same error at every call.
pub fn shared() -> Result<&'static Local, &'static LocalError> {
    static SHARED: OnceLock<Result<Local, LocalError>> = OnceLock::new();
    extern "C" fn end() {
        if let Some(Ok(local)) = SHARED.get() {
            local.stop();
        }
    }
    let made = SHARED.get_or_init(|| {
        let local = Local::ephemeral(&mut |_| {})?;
        at_exit(end);
        Ok(local)
    });
    made.as_ref()
}

#[expect(unsafe_code, reason = "std has no way to run code when the process exits")]
fn at_exit(end: extern "C" fn()) {
    // SAFETY: `end` is a function of the program itself and lives as long as it does. Should the
    // registration fail, the children die by signal and the next run removes the directory.
    unsafe {
        libc::atexit(end);
    }
}

/// `/var/tmp` and not `/tmp`: the latter may live in memory, where durable means nothing.
fn home() -> Result<PathBuf, LocalError> {
    let home = Path::new("/var/tmp").join(format!("foldstream-ephemeral-{}", Uid::effective()));
    create_private(&home)?;
    require_ours(&home)?;
    Ok(home)
}

/// Removes the directories of processes that are gone. One that cannot be removed is left.
fn clear_leftovers(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let path = entry.path();
        // A new one may not have been locked yet.
        let age = entry.metadata().and_then(|meta| meta.modified()).map(|time| time.elapsed());
        let young = matches!(age, Ok(Ok(age)) if age < Duration::from_secs(60));
        if young || !matches!(try_lock(&path), Ok(Some(_))) {
            continue;
        }
        let Ok(place) = crate::place::Place::open(&path) else { continue };
        if kafka::end_earlier(&place.work).is_ok() && postgres::end_earlier(&place.work).is_ok() {
            place.remove();
        }
    }
}
