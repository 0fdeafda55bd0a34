//! The children's directories in `/var/tmp` whose data directory was removed: nobody would ever
//! remove them, since they lie apart from it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::place::require_ours;
use crate::{LocalError, kafka, postgres};

/// Writes down which data directory this one belongs to, and on which device that lies.
pub(crate) fn remember(work: &Path, data_dir: &Path) -> Result<(), LocalError> {
    let device = fs::metadata(data_dir).map_err(LocalError::io("cannot look at", data_dir))?.dev();
    let path = work.join("origin");
    // A path that is no text cannot be remembered; its directory stays.
    let Some(data_dir) = data_dir.to_str() else { return Ok(()) };
    fs::write(&path, format!("{device}\n{data_dir}\n"))
        .map_err(LocalError::io("cannot write", &path))
}

/// Removes the abandoned ones; what cannot be removed is left.
pub(crate) fn clear() {
    for entry in fs::read_dir("/var/tmp").into_iter().flatten().flatten() {
        let work = entry.path();
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("foldstream-") && require_ours(&work).is_ok();
        if ours
            && is_abandoned(&work)
            && kafka::end_earlier(&work).is_ok()
            && postgres::end_earlier(&work).is_ok()
        {
            let _ = fs::remove_dir_all(&work);
        }
    }
}

/// Whether its data directory is gone, and not just a disk that is not mounted now: what is left
/// of the path lies on the device that the data directory was on.
fn is_abandoned(work: &Path) -> bool {
    let Some((device, data_dir)) = origin(work) else { return false };
    if data_dir.exists() {
        return false;
    }
    let rest = data_dir.ancestors().find_map(|path| fs::metadata(path).ok());
    rest.is_some_and(|rest| rest.dev() == device)
}

fn origin(work: &Path) -> Option<(u64, PathBuf)> {
    let text = fs::read_to_string(work.join("origin")).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.parse().ok()?, PathBuf::from(lines.next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_lost_its_data_directory_is_abandoned() {
        let dir = std::env::temp_dir().join(format!("foldstream-origin-{}", std::process::id()));
        let (work, data) = (dir.join("work"), dir.join("data"));
        fs::create_dir_all(&work).unwrap();
        fs::create_dir_all(&data).unwrap();
        assert!(!is_abandoned(&work), "it names no origin");
        remember(&work, &data).unwrap();
        assert!(!is_abandoned(&work));
        fs::remove_dir(&data).unwrap();
        assert!(is_abandoned(&work));
        fs::write(work.join("origin"), format!("1234567\n{}\n", data.display())).unwrap();
        assert!(!is_abandoned(&work), "another device may be mounted again");
        fs::remove_dir_all(&dir).unwrap();
    }
}
