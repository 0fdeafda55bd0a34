//! A read model as the query side knows it, and reading from its live build.

use crate::cursor::Cursor;
use crate::database::{Database, ReadError};
use crate::list_query::ListQuery;
use crate::statement::{self, Statement};
use foldstream_core::{AnyReadModel, ColumnDef, Table, Value};
use foldstream_tables::{Place, Snapshot};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::sync::atomic::{AtomicI32, Ordering};

/// Columns of a statement's answer before those of the rows.
pub(crate) const FIRST_CELL: usize = 3;
/// How often a read follows a build that is exchanged for another under it.
const MAX_TRIES: usize = 4;

/// A read model, the topics it reads and the build last seen live.
pub(crate) struct Model {
    pub(crate) table: &'static Table,
    /// Full names, such as `shop.invoices`.
    pub(crate) topics: Vec<String>,
    /// 0: not known yet.
    build: AtomicI32,
}

/// What is read.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Get { select: Vec<&'static ColumnDef>, key: Vec<Value<'static>> },
    List { query: ListQuery, cursor: Option<Cursor>, count: bool },
}

/// Rows and the place of the build in one snapshot.
pub(crate) struct Reading {
    pub(crate) snapshot: Snapshot,
    pub(crate) rows: Vec<PgRow>,
    /// The columns of the rows, from [`FIRST_CELL`] on.
    pub(crate) columns: Vec<&'static ColumnDef>,
    pub(crate) total: Option<i64>,
}

/// What a read comes to.
pub(crate) enum Outcome {
    Read(Reading),
    /// No build that this program's declaration fits is live: the first, or one of another
    /// version, is being built.
    NotLive,
}

impl Model {
    pub(crate) fn new(model: &dyn AnyReadModel, app: &str) -> Self {
        let topics = model.topics().iter().map(|topic| topic.full_name(app)).collect();
        Model { table: model.table(), topics, build: AtomicI32::new(0) }
    }

    /// Reads from the build that is live in the very snapshot of the rows.
    pub(crate) async fn read(
        &self,
        database: &Database,
        asked: &Asked,
    ) -> Result<Outcome, ReadError> {
        for _ in 0..MAX_TRIES {
            let build = self.build.load(Ordering::Relaxed);
            let statement = self.statement(build, asked);
            let rows = match database.rows(&statement).await {
                Err(ReadError::NoSuchBuild) if build != 0 => {
                    self.build.store(0, Ordering::Relaxed);
                    continue;
                }
                answer => answer?,
            };
            let Some(snapshot) = snapshot(&rows)? else { return Ok(Outcome::NotLive) };
            if snapshot.version != self.table.version {
                return Ok(Outcome::NotLive);
            }
            if snapshot.build != build {
                self.build.store(snapshot.build, Ordering::Relaxed);
                continue;
            }
            let total = rows.first().map(|row| row.try_get(1)).transpose().map_err(fault)?;
            let is_row = |row: &PgRow| row.try_get::<bool, _>(2).unwrap_or(false);
            let rows = rows.into_iter().filter(is_row).collect();
            let (columns, total) = (statement.columns, total.flatten());
            return Ok(Outcome::Read(Reading { snapshot, rows, columns, total }));
        }
        Err(ReadError::NoSuchBuild)
    }

    fn statement(&self, build: i32, asked: &Asked) -> Statement {
        if build == 0 {
            return statement::snapshot(self.table);
        }
        let place = Place::new(self.table, build);
        match asked {
            Asked::Get { select, key } => statement::get(place, select, key.clone()),
            Asked::List { query, cursor, count } => {
                statement::list(place, query, cursor.as_ref(), *count)
            }
        }
    }
}

fn snapshot(rows: &[PgRow]) -> Result<Option<Snapshot>, ReadError> {
    let Some(first) = rows.first() else { return Ok(None) };
    let text: Option<&str> = first.try_get(0).map_err(fault)?;
    text.map(Snapshot::parse).transpose().map_err(|e| ReadError::Fault(e.to_string()))
}

fn fault(error: sqlx::Error) -> ReadError {
    ReadError::Fault(error.to_string())
}
