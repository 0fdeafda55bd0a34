//! Rows in and out of one build's table. The caller owns the transaction and its deadline.

use crate::cells::{arrays, decode_row, put};
use crate::{Place, TableError, statements};
use foldstream_core::{AnyRows, Cells, ColumnDef};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgArgumentBuffer, PgConnection};
use sqlx::{AssertSqlSafe, Executor};

/// A build's table with the text of its statements, made once.
#[derive(Debug, Clone)]
pub struct TableSql {
    place: Place,
    load: String,
    upsert: String,
    delete: String,
    copy: String,
}

impl TableSql {
    /// Of this build.
    pub fn new(place: Place) -> Self {
        TableSql {
            place,
            load: statements::load(&place),
            upsert: statements::upsert(&place),
            delete: statements::delete(&place),
            copy: statements::copy(&place),
        }
    }
    /// Where the table lies.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Reads and locks the rows of these keys, in key order, into `rows`.
    ///
    /// # Errors
    /// When Postgres is away or refuses, or a cell is of another type than its column.
    pub async fn load(
        &self,
        connection: &mut PgConnection,
        keys: &(dyn Cells + Send),
        rows: &mut dyn AnyRows,
    ) -> Result<(), TableError> {
        if keys.rows() == 0 {
            return Ok(());
        }
        let table = self.place.table;
        let arguments = arrays(keys, table.keys())?;
        let statement = sqlx::query_with(AssertSqlSafe(self.load.as_str()), arguments);
        let mut stored = statement.fetch(connection);
        while let Some(row) = stored.try_next().await? {
            rows.load(decode_row(&row, 0, table.columns)?)?;
        }
        Ok(())
    }

    /// Writes whole rows, which come in key order: a keyed model's replace what is stored, an
    /// additive model's merge into it. Answers how many.
    ///
    /// # Errors
    /// When Postgres is away, or refuses a cell.
    pub async fn upsert(
        &self,
        connection: &mut PgConnection,
        rows: &(dyn Cells + Send),
    ) -> Result<u64, TableError> {
        run(connection, &self.upsert, rows, self.place.table.columns.iter()).await
    }

    /// Removes the rows of these keys. Answers how many there were.
    ///
    /// # Errors
    /// When Postgres is away or refuses.
    pub async fn delete(
        &self,
        connection: &mut PgConnection,
        keys: &(dyn Cells + Send),
    ) -> Result<u64, TableError> {
        run(connection, &self.delete, keys, self.place.table.keys()).await
    }

    /// Writes rows into an empty table with COPY; answers how many.
    ///
    /// # Errors
    /// When Postgres is away, or refuses a cell.
    pub async fn copy(
        &self,
        connection: &mut PgConnection,
        rows: &(dyn Cells + Send),
    ) -> Result<u64, TableError> {
        const SEND_BYTES: usize = 256 * 1024;
        const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
        let table = self.place.table;
        let count = i16::try_from(table.columns.len())
            .map_err(|_| TableError::Encode("a table has at most 1600 columns".into()))?;
        let mut copy = connection.copy_in_raw(&self.copy).await?;
        let mut buffer = PgArgumentBuffer::default();
        buffer.extend_from_slice(HEAD);
        for row in 0..rows.rows() {
            buffer.extend_from_slice(&count.to_be_bytes());
            for column in 0..table.columns.len() {
                if let Err(cause) = put(&rows.value(row, column), &mut buffer) {
                    copy.abort("a cell cannot be written").await?;
                    return Err(TableError::Encode(cause));
                }
            }
            if buffer.len() >= SEND_BYTES {
                copy.send(buffer.as_slice()).await?;
                buffer.clear();
            }
        }
        buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        copy.send(buffer.as_slice()).await?;
        Ok(copy.finish().await?)
    }

    /// Reads every row of the table in key order, for checks and oracles.
    ///
    /// # Errors
    /// When Postgres is away or refuses, or a cell is of another type than its column.
    pub async fn all(
        &self,
        connection: &mut PgConnection,
        rows: &mut dyn AnyRows,
    ) -> Result<(), TableError> {
        let table = self.place.table;
        let select = format!(
            "select {} from {} order by {}",
            statements::names(table.columns.iter()),
            self.place.qualified(),
            statements::names(table.keys())
        );
        // `query`, not `raw_sql`: a prepared statement answers in binary.
        let mut stored = sqlx::query(AssertSqlSafe(select)).fetch(connection);
        while let Some(row) = stored.try_next().await? {
            rows.load(decode_row(&row, 0, table.columns)?)?;
        }
        Ok(())
    }
}

async fn run(
    connection: &mut PgConnection,
    statement: &str,
    cells: &(dyn Cells + Send),
    columns: impl Iterator<Item = &'static ColumnDef>,
) -> Result<u64, TableError> {
    if cells.rows() == 0 {
        return Ok(0);
    }
    let arguments = arrays(cells, columns)?;
    let done = connection.execute(sqlx::query_with(AssertSqlSafe(statement), arguments)).await?;
    Ok(done.rows_affected())
}
