//! `order=column.asc|desc[.nullsfirst|nullslast],…`, completed by the key.

use crate::filter::filterable;
use crate::query_string::echo;
use foldstream_core::{ColumnDef, Table};
use foldstream_service::FieldError;

/// One column of an order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    pub(crate) column: &'static ColumnDef,
    pub(crate) descending: bool,
    /// Whether null comes before all values; of no meaning where the column has none.
    pub(crate) nulls_first: bool,
}

impl Term {
    /// Without a word about nulls null is greater than every value, as in Postgres and its indexes.
    fn new(column: &'static ColumnDef, descending: bool) -> Self {
        Term { column, descending, nulls_first: descending }
    }

    fn is_of(&self, column: &ColumnDef) -> bool {
        self.column.name == column.name
    }

    /// The same column read from the end.
    pub(crate) fn reversed(self) -> Self {
        Term { descending: !self.descending, nulls_first: !self.nulls_first, ..self }
    }
}

/// The order of a list. Without one it is the key's; always the key's columns that are missing
/// come last, in the direction of the last column named, so that no two rows are equal and one
/// index can be read from end to end.
pub(crate) fn parse(table: &'static Table, text: Option<&str>) -> Result<Vec<Term>, FieldError> {
    let mut terms: Vec<Term> = Vec::new();
    for part in text.into_iter().flat_map(|text| text.split(',')) {
        let term = term(table, part)?;
        if terms.iter().any(|known| known.is_of(term.column)) {
            let detail = format!("the column {} stands there twice", term.column.name);
            return Err(FieldError::new("order", "duplicate-column", detail));
        }
        terms.push(term);
    }
    let descending = terms.last().is_some_and(|term| term.descending);
    for key in table.keys() {
        if !terms.iter().any(|term| term.is_of(key)) {
            terms.push(Term::new(key, descending));
        }
    }
    Ok(terms)
}

fn term(table: &'static Table, part: &str) -> Result<Term, FieldError> {
    let mut words = part.split('.');
    let name = words.next().unwrap_or_default();
    let Some(column) = filterable(table).find(|c| c.name == name) else {
        let columns: Vec<_> = filterable(table).map(|c| c.name).collect();
        let detail = format!("cannot order by \"{}\"; allowed: {}", echo(name), columns.join(", "));
        return Err(FieldError::new("order", "unknown-column", detail));
    };
    let (direction, nulls) = match (words.next(), words.next()) {
        (Some(nulls @ ("nullsfirst" | "nullslast")), None) => (None, Some(nulls)),
        given => given,
    };
    let descending = match direction {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(bad_term(part)),
    };
    let term = Term::new(column, descending);
    let nulls_first = match nulls {
        None => term.nulls_first,
        Some("nullsfirst") => true,
        Some("nullslast") => false,
        Some(_) => return Err(bad_term(part)),
    };
    match words.next() {
        None => Ok(Term { nulls_first, ..term }),
        Some(_) => Err(bad_term(part)),
    }
}

fn bad_term(part: &str) -> FieldError {
    let detail = format!(
        "\"{}\" is not column, column.asc or column.desc, each also with .nullsfirst or .nullslast",
        echo(part)
    );
    FieldError::new("order", "bad-order", detail)
}
