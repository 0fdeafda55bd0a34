//! The crates of the workspace, as cargo knows them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run::cargo;

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) dependencies: Vec<Dependency>,
    manifest_path: String,
    #[serde(skip)]
    pub(super) folder: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Absent for a normal one.
    pub(super) kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

/// Asks cargo.
pub(super) fn packages(root: &Path) -> Result<Vec<Package>> {
    let args = ["metadata", "--no-deps", "--format-version", "1", "--quiet"];
    let output = cargo(root, &args).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&output.stdout)
}

fn parse(text: &[u8]) -> Result<Vec<Package>> {
    let Metadata { mut packages, workspace_root } =
        serde_json::from_slice(text).context("cargo metadata")?;
    for package in &mut packages {
        let folder = Path::new(&package.manifest_path).parent().unwrap_or(Path::new(""));
        let folder = folder.strip_prefix(&workspace_root).unwrap_or(folder);
        package.folder = folder.to_string_lossy().into_owned();
    }
    Ok(packages)
}

#[cfg(test)]
impl Package {
    pub(super) fn planted(name: &str, folder: &str, dependencies: &[(&str, Option<&str>)]) -> Self {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).into(), kind: kind.map(str::to_owned) });
        Self {
            name: name.into(),
            dependencies: dependencies.collect(),
            manifest_path: String::new(),
            folder: folder.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_says_is_understood() {
        let packages = parse(
            br#"{"workspace_root":"/w","packages":[{"name":"a","manifest_path":"/w/x/a/Cargo.toml",
            "dependencies":[{"name":"b","kind":null},{"name":"c","kind":"dev"}]}]}"#,
        );
        let packages = packages.unwrap();
        assert_eq!(packages[0].folder, "x/a");
        assert_eq!(packages[0].dependencies[0].kind, None);
        assert_eq!(packages[0].dependencies[1].kind.as_deref(), Some("dev"));
    }
}
