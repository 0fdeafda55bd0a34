//! `cargo x tidy`: walls between crates, sizes, names, links.

mod documents;
mod metadata;
mod sources;
mod walls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use walls::Wall;

/// What is wrong, and where (relative to the root).
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    text: String,
}

impl Finding {
    fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into() }
    }
}

pub(crate) fn run() -> Result<ExitCode> {
    let clean = report(&crate::root()?)?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what is wrong; true if nothing is.
pub(crate) fn report(root: &Path) -> Result<bool> {
    let findings = check(root)?;
    for Finding { place, text } in &findings {
        eprintln!("{place}: {text}");
    }
    if !findings.is_empty() {
        eprintln!("tidy: {} findings", findings.len());
    }
    Ok(findings.is_empty())
}

fn check(root: &Path) -> Result<Vec<Finding>> {
    let architecture =
        fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let walls = walls::parse(&architecture)?;
    let packages = metadata::packages(root)?;
    let mut findings = walls::check(&walls, &packages);
    findings.extend(documents::architecture(&architecture, &packages));
    for path in files(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        findings.extend(sources::names_of_path(&name));
        let Ok(text) = fs::read_to_string(&path) else { continue };
        findings.extend(sources::markers(&name, &text));
        if name.ends_with(".rs") {
            findings.extend(sources::check(&name, &text, wall_of(&walls, &name)));
        } else if name.ends_with(".md") {
            findings.extend(documents::links(root, &name, &text));
            findings.extend(documents::tests(root, &name, &text));
        }
    }
    Ok(findings)
}

/// The row of the crate a file belongs to: the one with the deepest folder.
fn wall_of<'a>(walls: &'a [Wall], file: &str) -> Option<&'a Wall> {
    walls
        .iter()
        .filter(|wall| Path::new(file).starts_with(&wall.folder))
        .max_by_key(|wall| wall.folder.len())
}

/// All text files of the repository; not what tools build, fetch or keep in hidden folders.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    const TEXT: [&str; 9] = ["rs", "md", "toml", "sql", "sh", "py", "yml", "yaml", "proto"];
    const NOT_OURS: [&str; 4] = ["target", "node_modules", "__pycache__", "venv"];
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && !NOT_OURS.contains(&name.as_str()) {
                folders.push(path);
            } else if kind.is_file()
                && path.extension().is_some_and(|ext| TEXT.iter().any(|text| ext == *text))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_deepest_crate() {
        let row = |folder: &str| Wall { folder: folder.into(), ..Wall::default() };
        let walls = [row("core"), row("core/derive"), row("app")];
        let folder = |file| wall_of(&walls, file).map(|wall| wall.folder.as_str());
        assert_eq!(folder("core/src/lib.rs"), Some("core"));
        assert_eq!(folder("core/derive/src/lib.rs"), Some("core/derive"));
        assert_eq!(folder("core-other/src/lib.rs"), None);
    }

    #[test]
    fn built_and_hidden_files_are_not_looked_at() {
        let root = tempfile::tempdir().unwrap();
        for file in ["a.rs", "target/b.rs", ".dev/c.rs", "docs/d.md", "data.bin"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = files(root.path()).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["a.rs", "d.md"]);
    }
}
