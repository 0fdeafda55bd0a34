//! What a list is asked for: filters, order, columns, how many, from where.

use crate::filter::{self, Filter};
use crate::order::{self, Term};
use crate::query_string::{echo, encode, pairs};
use foldstream_core::{ColumnDef, Table};
use foldstream_service::FieldError;
use sha2::{Digest, Sha256};

/// Rows of a page when nothing is said.
pub(crate) const DEFAULT_LIMIT: u32 = 50;
/// Rows of a page at most.
pub(crate) const MAX_LIMIT: u32 = 500;
/// Filters of one query at most.
pub(crate) const MAX_FILTERS: usize = 20;
/// Parameters that have one value; no filterable column may be named like one.
pub(crate) const SINGLE: [&str; 4] = ["select", "order", "limit", "cursor"];

/// A list query that was checked against the table.
#[derive(Debug, Clone)]
pub(crate) struct ListQuery {
    pub(crate) filters: Vec<Filter>,
    /// Complete: no two rows are equal in it.
    pub(crate) order: Vec<Term>,
    pub(crate) select: Vec<&'static ColumnDef>,
    pub(crate) limit: u32,
    pub(crate) cursor: Option<String>,
    /// Of what makes it this query: filters, order and columns as they were given.
    pub(crate) fingerprint: [u8; 16],
    /// The parameters without the cursor, for links to other pages.
    pub(crate) link: String,
}

impl ListQuery {
    /// The query of a query string.
    ///
    /// # Errors
    /// Everything that is wrong with it, at least one.
    pub(crate) fn parse(table: &'static Table, raw: &str) -> Result<Self, Vec<FieldError>> {
        let pairs = pairs(raw).map_err(|error| vec![error])?;
        let mut errors = duplicates(&pairs);
        let single = |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let mut kept = |error: FieldError| errors.push(error);
        let select = select(table, single("select")).map_err(&mut kept).unwrap_or_default();
        let order = order::parse(table, single("order")).map_err(&mut kept).unwrap_or_default();
        let limit = limit(single("limit")).map_err(&mut kept).unwrap_or_default();
        let terms = pairs.iter().filter(|(name, _)| !SINGLE.contains(&name.as_str()));
        if terms.clone().count() > MAX_FILTERS {
            let detail = format!("a query has at most {MAX_FILTERS} filters");
            return Err(vec![FieldError::new("query", "too-many-filters", detail)]);
        }
        let parsed = terms.map(|(name, value)| filter::parse(table, name, value));
        let filters = parsed.filter_map(|filter| filter.map_err(&mut kept).ok()).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let cursor = single("cursor").map(str::to_owned);
        let (fingerprint, link) = (fingerprint(&pairs), link(&pairs));
        Ok(ListQuery { filters, order, select, limit, cursor, fingerprint, link })
    }
}

fn duplicates(pairs: &[(String, String)]) -> Vec<FieldError> {
    let twice = |name: &&str| pairs.iter().filter(|(n, _)| n == name).nth(1).is_some();
    let error = |name| FieldError::new(name, "duplicate", "the parameter is given more than once");
    SINGLE.into_iter().filter(twice).map(error).collect()
}

/// The columns of an answer: those named, else all that are shown.
pub(crate) fn select(
    table: &'static Table,
    text: Option<&str>,
) -> Result<Vec<&'static ColumnDef>, FieldError> {
    let Some(text) = text else { return Ok(table.shown().collect()) };
    let mut columns: Vec<&'static ColumnDef> = Vec::new();
    for name in text.split(',') {
        let Some(column) = table.shown().find(|c| c.name == name) else {
            let allowed: Vec<_> = table.shown().map(|c| c.name).collect();
            let detail = format!("no column \"{}\"; allowed: {}", echo(name), allowed.join(", "));
            return Err(FieldError::new("select", "unknown-column", detail));
        };
        if columns.iter().any(|known| known.name == name) {
            let detail = format!("the column {name} stands there twice");
            return Err(FieldError::new("select", "duplicate-column", detail));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn limit(text: Option<&str>) -> Result<u32, FieldError> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let plain = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| plain && (1..=MAX_LIMIT).contains(n));
    number.ok_or_else(|| {
        let detail = format!("limit is an integer from 1 to {MAX_LIMIT}");
        FieldError::new("limit", "out-of-range", detail)
    })
}

/// Of all parameters but those that may differ from page to page, whatever their order.
fn fingerprint(pairs: &[(String, String)]) -> [u8; 16] {
    let mut same: Vec<_> =
        pairs.iter().filter(|(name, _)| name != "cursor" && name != "limit").collect();
    same.sort();
    let mut hash = Sha256::new();
    for text in same.into_iter().flat_map(|(name, value)| [name, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

fn link(pairs: &[(String, String)]) -> String {
    let kept = pairs.iter().filter(|(name, _)| name != "cursor");
    kept.map(|(name, value)| format!("{}={}&", encode(name), encode(value))).collect()
}

#[cfg(test)]
mod tests;
