//! One Kafka and one Postgres for all tests of a process.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// Setting a test database up or tearing it down takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Real Kafka and Postgres, shared by all tests of this process.
#[derive(Debug)]
pub struct Infra {
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// A database on the server whose user may create databases.
    pub postgres_admin_url: String,
}

/// The infrastructure named by `KAFKA_BOOTSTRAP` and `DATABASE_URL`; what they do not name is
/// started at the first call (some seconds) and ends with the process.
///
/// # Panics
/// It cannot be started; the message says what is missing.
pub fn infra() -> &'static Infra {
    static INFRA: OnceLock<Infra> = OnceLock::new();
    INFRA.get_or_init(|| {
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let local = || match foldstream_local::shared() {
            Ok(local) => local,
            Err(error) => panic!("real Kafka and Postgres do not start: {error}"),
        };
        Infra {
            kafka: given("KAFKA_BOOTSTRAP").unwrap_or_else(|| local().kafka().to_owned()),
            postgres_admin_url: given("DATABASE_URL")
                .unwrap_or_else(|| local().postgres_url("postgres")),
        }
    })
}

/// A database of its own for one test, dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its address, user and password included.
    pub url: String,
    name: String,
}

/// Creates an empty database (UTF-8, locale C). `hint` makes it recognisable in logs.
///
/// # Panics
/// The server does not answer or refuses.
pub async fn database(hint: &str) -> TestDatabase {
    let name = unique(hint).replace('-', "_");
    let admin = &infra().postgres_admin_url;
    let sql = format!("create database \"{name}\" template template0 encoding 'UTF8' locale 'C'");
    if let Err(error) = run(admin, sql).await {
        panic!("cannot create database {name}: {error}");
    }
    TestDatabase { url: with_database(admin, &name), name }
}

impl Drop for TestDatabase {
    /// On a thread with a runtime of its own: the test's may be gone, or be this very thread.
    fn drop(&mut self) {
        let sql = format!("drop database if exists \"{}\" with (force)", self.name);
        let dropped = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(run(&infra().postgres_admin_url, sql)))
        });
        // Best effort: the test may have stopped the server on purpose.
        let _ = dropped.join();
    }
}

async fn run(admin: &str, sql: String) -> anyhow::Result<()> {
    tokio::time::timeout(PATIENCE, async {
        let mut connection = PgConnection::connect(admin).await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    })
    .await?
}

/// The same server's other database: only the path of the URL changes.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = match url.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (url, String::new()),
    };
    let authority = address.find("://").map_or(0, |at| at + 3);
    let path = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    format!("{}/{name}{query}", &address[..path])
}

/// `<prefix>-<12 random hex digits>`: keeps the topics and applications of tests apart.
#[must_use]
pub fn unique(prefix: &str) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &random[..12])
}

/// A binary of this workspace, beside the test that asks.
///
/// # Panics
/// It is not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its own executable");
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built beside {}: cargo build --workspace --bins", test.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_url_changes() {
        let cases = [
            ("postgres://u:p@h:1/postgres", "postgres://u:p@h:1/x"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/x"),
            ("postgres://h/a?sslmode=disable", "postgres://h/x?sslmode=disable"),
        ];
        for (given, wanted) in cases {
            assert_eq!(with_database(given, "x"), wanted);
        }
    }

    #[tokio::test]
    async fn a_database_is_there_and_gone_when_dropped() {
        let database = database("testkit").await;
        let (url, name) = (database.url.clone(), database.name.clone());
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let collation: String =
            sqlx::query_scalar("select datcollate from pg_database where datname = $1")
                .bind(&name)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(collation, "C");
        drop(database);
        assert!(PgConnection::connect(&url).await.is_err());
    }
}
