//! What of a declaration may not change without a new version: kept with each build as text.

use crate::error::MigrateError;
use crate::statements::type_name;
use foldstream_core::{AnyReadModel, ColumnDef, Merge};
use std::collections::HashSet;
use std::sync::Arc;

/// Longer names would be cut by Postgres once a prefix stands before them.
const MAX_NAME: usize = 48;

/// The declaration, line by line. Comments and filters are not part of it: they change in place.
pub(crate) fn text(model: &dyn AnyReadModel) -> String {
    let table = model.table();
    let kind = if table.additive { "additive" } else { "keyed" };
    let topics: Vec<&str> = model.topics().iter().map(|topic| topic.name).collect();
    let mut lines = vec![format!("{kind} from {}", topics.join(", "))];
    lines.extend(table.columns.iter().map(column));
    lines.join("\n")
}

fn column(column: &ColumnDef) -> String {
    let null = if column.nullable { " null" } else { "" };
    let hidden = if column.hidden { " hidden" } else { "" };
    let merge = match column.merge {
        Merge::Key => "key".to_owned(),
        Merge::Replace => "replace".to_owned(),
        Merge::Sum => "sum".to_owned(),
        Merge::Min => "min".to_owned(),
        Merge::Max => "max".to_owned(),
        Merge::Latest(by) => format!("latest by {}", by.join(", ")),
    };
    let labels = match column.labels.is_empty() {
        true => String::new(),
        false => format!(" of {}", column.labels.join(", ")),
    };
    let column_type = type_name(column.column_type);
    format!("{} {column_type}{null}{hidden} {merge}{labels}", column.name)
}

/// The first lines that differ, in words.
pub(crate) fn difference(stored: &str, declared: &str) -> String {
    let gone: Vec<&str> = stored.lines().filter(|l| !declared.lines().any(|d| d == *l)).collect();
    let new: Vec<&str> = declared.lines().filter(|l| !stored.lines().any(|s| s == *l)).collect();
    match (gone.first(), new.first()) {
        (Some(gone), Some(new)) => format!("`{gone}` became `{new}`"),
        (Some(gone), None) => format!("`{gone}` is gone"),
        (None, Some(new)) => format!("`{new}` is new"),
        (None, None) => "the order of the columns".into(),
    }
}

/// Refuses what Postgres, routes or metrics could not name.
pub(crate) fn check(models: &[Arc<dyn AnyReadModel>]) -> Result<(), MigrateError> {
    let mut names = HashSet::new();
    for model in models {
        let table = model.table();
        let wrong = |reason: String| MigrateError::Declaration { name: table.name, reason };
        if !names.insert(table.name) {
            return Err(wrong("another one has the same name".into()));
        }
        let named = std::iter::once(table.name).chain(table.columns.iter().map(|c| c.name));
        for name in named {
            let plain = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
            if !plain || !starts || name.len() > MAX_NAME {
                return Err(wrong(format!(
                    "`{name}` is no name of a table or column: at most {MAX_NAME} of a-z 0-9 _, \
                     a letter first"
                )));
            }
        }
        if table.version == 0 || i32::try_from(table.version).is_err() {
            return Err(wrong("versions count from 1".into()));
        }
    }
    Ok(())
}
