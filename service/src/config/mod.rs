//! Configuration: file < environment < flags, checked against a table of keys.
//!
//! The app owns the keys: a `&[Key]` and a struct of the same shape with
//! `#[serde(default, deny_unknown_fields)]`. From the table come the checks, the names of the
//! environment variables, `config show` and the documentation.

mod file;
mod key;

pub use key::{Key, Kind};

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// The exit code of a process whose configuration is not valid.
pub const EXIT_CODE: u8 = 78;

/// Where a value comes from; the later overrides the earlier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The program itself.
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag on the command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Everything that is wrong with the configuration, found in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// One sentence for each fault, with its place and the rule.
    pub faults: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

/// One value of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, such as `relay.batch_bytes`.
    pub key: String,
    /// Its value as text, secrets masked; none where the key has no value.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// What the key means.
    pub doc: &'static str,
}

/// A configuration and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// Every key, for `config show`.
    pub entries: Vec<Entry>,
}

/// Collects the layers of a configuration.
#[derive(Debug, Clone)]
pub struct Loader {
    keys: &'static [Key],
    file: Option<(PathBuf, bool)>,
    environment: BTreeMap<String, String>,
    flags: Vec<(String, String)>,
}

/// The values that were set, by the parts of their key.
type Layers = BTreeMap<Vec<String>, (Value, Source)>;

impl Loader {
    /// A loader of these keys, with nothing to load yet.
    #[must_use]
    pub fn new(keys: &'static [Key]) -> Self {
        Self { keys, file: None, environment: BTreeMap::new(), flags: Vec::new() }
    }

    /// Reads this file, which must be there.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some((path.into(), true));
        self
    }

    /// Reads this file if it is there.
    #[must_use]
    pub fn file_if_present(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some((path.into(), false));
        self
    }

    /// Takes these environment variables, as of `std::env::vars()`. Empty ones count as not set.
    #[must_use]
    pub fn environment(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(vars.into_iter().filter(|(_, value)| !value.is_empty()));
        self
    }

    /// Takes a flag: the key's path and its value as text.
    #[must_use]
    pub fn flag(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((path.into(), value.into()));
        self
    }

    /// Lays the layers over each other and checks them.
    ///
    /// # Errors
    /// All faults at once: unknown keys with file, line and the nearest known key; values of a
    /// wrong type or outside their range with the rule. The process then ends with
    /// [`EXIT_CODE`], before it opens a socket.
    pub fn load<T: DeserializeOwned + Serialize>(&self) -> Result<Loaded<T>, ConfigError> {
        let mut layers = Layers::new();
        let mut faults = Vec::new();
        if let Some((path, required)) = &self.file {
            file::read(self.keys, path, *required, &mut layers, &mut faults);
        }
        self.add_environment(&mut layers, &mut faults);
        self.add_flags(&mut layers, &mut faults);
        if !faults.is_empty() {
            return Err(ConfigError { faults });
        }
        let mut table = Table::new();
        for (path, (value, _)) in &layers {
            insert(&mut table, path, value.clone());
        }
        let one = |fault: String| ConfigError { faults: vec![fault] };
        // Not the error's own text alone: it may quote a value, so texts in it are masked.
        let value: T = Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| one(key::mask(&error.to_string())))?;
        let shown = Table::try_from(&value).map_err(|error| one(error.to_string()))?;
        Ok(Loaded { entries: self.entries(&shown, &layers), value })
    }

    fn add_environment(&self, layers: &mut Layers, faults: &mut Vec<String>) {
        for key in self.keys.iter().filter(|key| !key.env.is_empty()) {
            for (name, text) in &self.environment {
                // A variable that another key names in full belongs to that key.
                let exact = self.keys.iter().any(|other| other.env == name);
                let wildcard = match key.env_wildcard(name) {
                    Some(wildcard) if key.env == name || !exact => wildcard,
                    Some(_) | None => continue,
                };
                let path = key.path_with(&wildcard);
                let source = Source::Environment(name.clone());
                set(key, path, text, source, layers, faults);
            }
        }
    }

    fn add_flags(&self, layers: &mut Layers, faults: &mut Vec<String>) {
        for (path, text) in &self.flags {
            let parts: Vec<_> = path.split('.').map(str::to_owned).collect();
            match key::find(self.keys, &parts) {
                Some(key) => set(key, parts, text, Source::Flag, layers, faults),
                None => faults.push(format!("flag: {}", key::unknown(self.keys, &parts))),
            }
        }
    }

    fn entries(&self, shown: &Table, layers: &Layers) -> Vec<Entry> {
        let mut entries = Vec::new();
        for key in self.keys {
            let mut found = Vec::new();
            collect(shown, &key.parts(), &mut Vec::new(), &mut found);
            if found.is_empty() {
                entries.push(Entry {
                    key: key.path.to_owned(),
                    value: None,
                    source: Source::Default,
                    doc: key.doc,
                });
            }
            for (path, value) in found {
                let source = layers.get(&path).map_or(Source::Default, |(_, from)| from.clone());
                let (path, value) = (path.join("."), Some(key.shown(&value)));
                entries.push(Entry { key: path, value, source, doc: key.doc });
            }
        }
        entries
    }
}

/// Sets a value that was given as text.
fn set(
    key: &Key,
    path: Vec<String>,
    text: &str,
    source: Source,
    layers: &mut Layers,
    faults: &mut Vec<String>,
) {
    match key.parse(text) {
        Ok(value) => {
            layers.insert(path, (value, source));
        }
        Err(rule) => faults.push(format!("{source}: {}: {rule}", path.join("."))),
    }
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let below = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                insert(below, rest, value);
            }
        }
    }
}

/// Every value whose path fits `parts`, where `*` fits any name.
fn collect(
    table: &Table,
    parts: &[&str],
    at: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Value)>,
) {
    let Some((part, rest)) = parts.split_first() else { return };
    for (name, value) in table.iter().filter(|(name, _)| *part == "*" || name == part) {
        at.push(name.clone());
        match value {
            Value::Table(below) if !rest.is_empty() => collect(below, rest, at, found),
            value if rest.is_empty() => found.push((at.clone(), value.clone())),
            _ => {}
        }
        at.pop();
    }
}

#[cfg(test)]
mod tests;
