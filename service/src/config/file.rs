//! The file layer: TOML, with the line of everything that is wrong.

use std::io;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::key::{self, Key};
use super::{Layers, Source};

/// Reads `path` into `layers`.
pub(super) fn read(
    keys: &[Key],
    path: &Path,
    required: bool,
    layers: &mut Layers,
    faults: &mut Vec<String>,
) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return,
        Err(error) => {
            faults.push(format!("{}: cannot be read: {error}", path.display()));
            return;
        }
    };
    let parsed = DeTable::parse(&text).and_then(|spanned| Ok((spanned, text.parse::<Table>()?)));
    match parsed {
        Ok((spanned, table)) => {
            let mut reading = Reading { keys, path, text: &text, layers, faults };
            reading.table(spanned.get_ref(), &table, &mut Vec::new());
        }
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            faults.push(format!("{}:{line}: {}", path.display(), error.message()));
        }
    }
}

struct Reading<'a> {
    keys: &'a [Key],
    path: &'a Path,
    text: &'a str,
    layers: &'a mut Layers,
    faults: &'a mut Vec<String>,
}

impl Reading<'_> {
    fn table(&mut self, spanned: &DeTable<'_>, table: &Table, at: &mut Vec<String>) {
        for (name, below) in spanned.iter() {
            let Some(value) = table.get(name.get_ref().as_ref()) else { continue };
            at.push(name.get_ref().to_string());
            let line = line_of(self.text, name.span().start);
            self.entry(below, value, at, line);
            at.pop();
        }
    }

    fn entry(
        &mut self,
        spanned: &Spanned<DeValue<'_>>,
        value: &Value,
        at: &mut Vec<String>,
        line: usize,
    ) {
        if let Some(key) = key::find(self.keys, at) {
            return self.value(key, value, at, line);
        }
        match (spanned.get_ref(), value) {
            (DeValue::Table(below), Value::Table(table)) if key::is_table(self.keys, at) => {
                self.table(below, table, at);
            }
            _ if key::is_table(self.keys, at) => {
                self.fault(line, format!("{} must be a table", at.join(".")));
            }
            _ => self.fault(line, key::unknown(self.keys, at)),
        }
    }

    fn value(&mut self, key: &Key, value: &Value, at: &[String], line: usize) {
        if key.is_confidential(value) && self.is_readable_by_all() {
            let advice = "holds a secret in a file that every user can read: chmod 600";
            return self.fault(line, format!("{} {advice} it", at.join(".")));
        }
        match key.check(value.clone()) {
            Ok(value) => {
                let source = Source::File { path: self.path.to_owned(), line };
                self.layers.insert(at.to_vec(), (value, source));
            }
            Err(rule) => self.fault(line, format!("{}: {rule}", at.join("."))),
        }
    }

    #[cfg(unix)]
    fn is_readable_by_all(&self) -> bool {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(self.path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
    }

    #[cfg(not(unix))]
    fn is_readable_by_all(&self) -> bool {
        false
    }

    fn fault(&mut self, line: usize, what: String) {
        self.faults.push(format!("{}:{line}: {what}", self.path.display()));
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
