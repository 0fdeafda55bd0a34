//! The rows of a page and the cursors to its neighbours.

use crate::cursor::{Cursor, Cursors, Of};
use crate::list_query::ListQuery;
use crate::model::{FIRST_CELL, Reading};
use foldstream_core::{ColumnDef, Value};
use foldstream_tables::cells::decode;
use serde::ser::{Error as _, SerializeMap};
use serde::{Serialize, Serializer};
use sqlx::postgres::PgRow;

/// A row as JSON: `columns` are the first ones of its answer.
pub(crate) struct RowJson<'a> {
    pub(crate) row: &'a PgRow,
    pub(crate) columns: &'a [&'static ColumnDef],
}

impl Serialize for RowJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (i, column) in self.columns.iter().enumerate() {
            let cell =
                decode(self.row, FIRST_CELL + i, column.column_type).map_err(S::Error::custom)?;
            map.serialize_entry(column.name, &cell)?;
        }
        map.end()
    }
}

/// The body of a list.
#[derive(Serialize)]
pub(crate) struct ListBody<'a> {
    data: Vec<RowJson<'a>>,
    page: Page,
}

#[derive(Serialize)]
struct Page {
    next: Option<String>,
    prev: Option<String>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
}

impl<'a> ListBody<'a> {
    /// The body of what was read for `query` from `cursor` on; `now` in Unix seconds.
    pub(crate) fn new(
        of: Of<'_>,
        cursors: &Cursors,
        query: &'a ListQuery,
        cursor: Option<&Cursor>,
        reading: &'a Reading,
        now: u64,
    ) -> Result<Self, sqlx::Error> {
        let limit = query.limit as usize;
        let beyond = reading.rows.len() > limit;
        let mut rows: Vec<&PgRow> = reading.rows.iter().take(limit).collect();
        let backward = cursor.is_some_and(|cursor| cursor.backward);
        if backward {
            rows.reverse();
        }
        let text = |cursor: Cursor| cursors.encode(of, &cursor, now);
        let beside = |row: Option<&&PgRow>, backward: bool| {
            let cursor = match (row, cursor) {
                (Some(row), _) => {
                    Cursor { values: place(query, reading, row)?, backward, inclusive: false }
                }
                // The page is empty: back to where it was asked from.
                (None, Some(from)) => {
                    Cursor { values: from.values.clone(), backward, inclusive: !from.inclusive }
                }
                (None, None) => return Ok(None),
            };
            Ok::<_, sqlx::Error>(Some(text(cursor)))
        };
        let (more_after, more_before) = match backward {
            true => (true, beyond),
            false => (beyond, cursor.is_some()),
        };
        let next = if more_after { beside(rows.last(), false)? } else { None };
        let prev = if more_before { beside(rows.first(), true)? } else { None };
        let columns = &query.select;
        let data = rows.into_iter().map(|row| RowJson { row, columns }).collect();
        let page = Page { has_more: next.is_some(), next, prev, total: reading.total };
        Ok(ListBody { data, page })
    }

    /// The pages beside this one: relation and cursor.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let links = [("next", self.page.next.as_deref()), ("prev", self.page.prev.as_deref())];
        links.into_iter().filter_map(|(relation, cursor)| cursor.map(|c| (relation, c)))
    }
}

/// The values of a row in the columns of the order.
fn place(
    query: &ListQuery,
    reading: &Reading,
    row: &PgRow,
) -> Result<Vec<Value<'static>>, sqlx::Error> {
    let terms = query.order.iter();
    terms
        .map(|term| {
            let at = reading.columns.iter().position(|c| c.name == term.column.name);
            let at = at.ok_or_else(|| sqlx::Error::ColumnNotFound(term.column.name.to_owned()))?;
            decode(row, FIRST_CELL + at, term.column.column_type).map(Value::into_owned)
        })
        .collect()
}
