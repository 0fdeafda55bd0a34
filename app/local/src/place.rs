//! Where the children's data live, who owns them, and what is remembered between runs.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{LocalError, abandoned};

/// The user the children run as, when it is not the one that runs this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// As root: the user without privileges that runs the children. Otherwise: none, they run as us.
pub(crate) fn owner() -> Result<Option<Owner>, LocalError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .map(|user| Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
        .ok_or(LocalError::NoUser)
}

/// The directories of one `Local`. The lock is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    /// What the caller named: state with the password, the lock, and the logs.
    pub(crate) data_dir: PathBuf,
    /// What the children may enter: their data. As non-root the same directory.
    pub(crate) work: PathBuf,
    pub(crate) owner: Option<Owner>,
    _lock: File,
}

impl Place {
    /// Creates what is missing and takes the lock; refuses directories of others.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, LocalError> {
        create_private(data_dir)?;
        let data_dir =
            fs::canonicalize(data_dir).map_err(LocalError::io("cannot enter", data_dir))?;
        let lock =
            try_lock(&data_dir)?.ok_or_else(|| LocalError::InUse { data_dir: data_dir.clone() })?;
        create_private(&data_dir.join("logs"))?;
        let owner = owner()?;
        let work = match owner {
            None => data_dir.clone(),
            Some(_) => shadow(&data_dir),
        };
        if owner.is_some() {
            create_enterable(&work)?;
            abandoned::remember(&work, &data_dir)?;
        }
        // Orphans are known by canonical paths.
        let work = fs::canonicalize(&work).map_err(LocalError::io("cannot enter", &work))?;
        Ok(Self { data_dir, work, owner, _lock: lock })
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{name}.log"))
    }

    /// Creates a directory in `work` that belongs to the child user alone.
    pub(crate) fn child_dir(&self, name: &str) -> Result<PathBuf, LocalError> {
        let path = self.work.join(name);
        create_private(&path)?;
        self.give(&path)?;
        Ok(path)
    }

    /// Makes the child user the owner of a file or directory.
    pub(crate) fn give(&self, path: &Path) -> Result<(), LocalError> {
        match self.owner {
            None => Ok(()),
            // Never through a link: the child user could lay one.
            Some(Owner { uid, gid }) => lchown(path, Some(uid), Some(gid))
                .map_err(LocalError::io("cannot change the owner of", path)),
        }
    }

    /// Removes everything, data included.
    pub(crate) fn remove(&self) {
        if self.work != self.data_dir {
            let _ = fs::remove_dir_all(&self.work);
        }
        let _ = fs::remove_dir_all(&self.data_dir);
    }
}

/// `/var/tmp/foldstream-<hash>`: stands for a path that an unprivileged user may not enter.
pub(crate) fn shadow(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let digest = Sha256::digest(OsStr::as_bytes(path.as_os_str()));
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Path::new("/var/tmp").join(format!("foldstream-{hash}"))
}

/// The lock of a data directory, or none if another living process holds it.
pub(crate) fn try_lock(data_dir: &Path) -> Result<Option<File>, LocalError> {
    let path = data_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(LocalError::io("cannot open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(source)) => {
            Err(LocalError::Io { action: "cannot lock", path, source })
        }
    }
}

/// A directory for us alone; leaves one that is there as it is.
pub(crate) fn create_private(path: &Path) -> Result<(), LocalError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(LocalError::io("cannot create", path))
}

/// A directory of ours that everybody may enter and nobody else may write.
/// `/var/tmp` is open to all: what stands there under our name must really be ours.
pub(crate) fn create_enterable(path: &Path) -> Result<(), LocalError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(LocalError::Io { action: "cannot create", path: path.into(), source });
        }
    }
    require_ours(path)?;
    // The umask may have narrowed the mode.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(LocalError::io("cannot change the mode of", path))
}

/// Refuses links and what belongs to another user.
pub(crate) fn require_ours(path: &Path) -> Result<(), LocalError> {
    let meta = fs::symlink_metadata(path).map_err(LocalError::io("cannot look at", path))?;
    let reason = if !meta.is_dir() {
        "it is not a directory".to_owned()
    } else if meta.uid() != Uid::effective().as_raw() {
        format!("it belongs to user {}", meta.uid())
    } else {
        return Ok(());
    };
    Err(LocalError::Unsafe { path: path.into(), reason })
}

/// What is remembered of a data directory between runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Says that data in `work` belong to this data directory.
    pub(crate) id: String,
    pub(crate) password: String,
    pub(crate) cluster_id: String,
    pub(crate) postgres_port: u16,
    pub(crate) kafka_port: u16,
    pub(crate) controller_port: u16,
}

impl State {
    /// Random identities, no ports yet.
    pub(crate) fn new() -> Self {
        Self {
            id: Uuid::new_v4().simple().to_string(),
            password: Uuid::new_v4().simple().to_string(),
            cluster_id: cluster_id(*Uuid::new_v4().as_bytes()),
            postgres_port: 0,
            kafka_port: 0,
            controller_port: 0,
        }
    }

    /// The saved state, or none in a new data directory.
    pub(crate) fn load(place: &Place) -> Result<Option<Self>, LocalError> {
        let path = place.data_dir.join("local.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LocalError::Io { action: "cannot read", path, source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| LocalError::State { path, reason: error.to_string() })
    }

    /// Saves for the next run; complete or not at all.
    pub(crate) fn save(&self, place: &Place) -> Result<(), LocalError> {
        let path = place.data_dir.join("local.json");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| LocalError::State { path: path.clone(), reason: error.to_string() })?;
        let new = place.data_dir.join("local.json.new");
        write_private(&new, &text)?;
        fs::rename(&new, &path).map_err(LocalError::io("cannot replace", &path))
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), LocalError> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(LocalError::io("cannot write", path))
}

/// Kafka's tools take an id that begins with a dash for an option.
fn cluster_id(mut random: [u8; 16]) -> String {
    random[0] &= 0x7f; // the first of the six-bit groups stays below 62, which is the dash
    base64_url(&random)
}

/// Base64 for URLs, without padding: how Kafka writes a cluster id.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0u8; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for place in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * place)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_what_kafka_reads_as_a_uuid() {
        assert_eq!(base64_url(&[0xff; 16]), "_____________________w");
        assert_eq!(base64_url(b"0123456789abcdef"), "MDEyMzQ1Njc4OWFiY2RlZg");
        assert_eq!(State::new().cluster_id.len(), 22);
        assert!(base64_url(&[0xf8; 16]).starts_with('-'));
        assert!(!cluster_id([0xf8; 16]).starts_with('-'));
    }

    #[test]
    fn a_path_has_one_shadow_and_other_paths_have_others() {
        assert_eq!(shadow(Path::new("/a")), shadow(Path::new("/a")));
        assert_ne!(shadow(Path::new("/a")), shadow(Path::new("/b")));
    }
}
