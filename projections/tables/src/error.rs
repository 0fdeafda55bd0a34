use foldstream_core::WrongType;

/// A read of or a write to a read model's table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Postgres is away, or refuses.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A cell that Postgres cannot hold.
    #[error("a cell cannot be written: {0}")]
    Encode(sqlx::error::BoxDynError),
    /// A stored cell of another type than its column.
    #[error(transparent)]
    Column(#[from] WrongType),
    /// Postgres did not answer in time.
    #[error("the read database did not answer within {0:?}")]
    Deadline(std::time::Duration),
    /// What `meta.snapshot` answers is not what it should.
    #[error("the read database's meta schema is not that of this program: {0}")]
    Meta(#[from] serde_json::Error),
}

impl TableError {
    /// Whether the data is at fault (value out of range, a constraint, an invalid text), so that
    /// the same write fails again; all else is a dependency that is away and comes back.
    pub fn is_data(&self) -> bool {
        match self {
            TableError::Encode(_) | TableError::Column(_) => true,
            TableError::Sql(sqlx::Error::Database(error)) => {
                // 22: data exception, 23: integrity constraint violation, 54: a limit is passed.
                error.code().is_some_and(|code| matches!(&code[..2], "22" | "23" | "54"))
            }
            TableError::Sql(sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) => true,
            TableError::Sql(_) | TableError::Deadline(_) | TableError::Meta(_) => false,
        }
    }
}

/// The read database is not as the declared read models need it.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres is away, or refuses.
    #[error("the read database: {0}")]
    Sql(#[from] sqlx::Error),
    /// A migration of the `meta` schema failed, or one that ran is not known here.
    #[error("the read database's meta schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// The database does not exist and may not be created.
    #[error("database \"{name}\" does not exist and cannot be created: {cause}")]
    CannotCreate {
        /// The database of the URL.
        name: String,
        /// What Postgres says.
        cause: sqlx::Error,
    },
    /// It took too long; another process may hold the lock.
    #[error("the read database was not migrated within {0:?}")]
    Deadline(std::time::Duration),
    /// Two read models share a name, or a name is no identifier.
    #[error("read model `{name}`: {reason}")]
    Declaration {
        /// The read model.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The declaration changed, its version did not.
    #[error(
        "read model `{name}` changed, but its version is still {version}: raise the version in \
         #[read_model(…)], so that a new build is made. What differs: {difference}"
    )]
    Changed {
        /// The read model.
        name: &'static str,
        /// The version of both.
        version: u32,
        /// The first lines that differ.
        difference: String,
    },
    /// The live build is of another version.
    #[error(
        "read model `{name}` is declared at version {declared}, its live build {build} holds \
         version {live}: {advice}"
    )]
    Version {
        /// The read model.
        name: &'static str,
        /// The version in the code.
        declared: u32,
        /// The live build.
        build: i32,
        /// Its version.
        live: u32,
        /// What to do.
        advice: &'static str,
    },
}
