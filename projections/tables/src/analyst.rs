use crate::TableError;
use crate::place::literal;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor};
use std::time::Duration;

/// Granting takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Roles belong to the whole server: two databases that grant at once may collide.
const TRIES: u32 = 5;

/// Lets the role `analyst` (made when it is missing) log in with this password and read
/// `analytics`, `read` and `meta`, views that come later included; nothing else. Its statements
/// end after 5 minutes.
///
/// # Errors
/// When Postgres is away or refuses: the pool's user must be allowed to make roles.
pub async fn grant_analyst(pool: &PgPool, password: &str) -> Result<(), TableError> {
    let statements = statements(password);
    let grant = async {
        for _ in 1..TRIES {
            match pool.execute(sqlx::raw_sql(AssertSqlSafe(statements.as_str()))).await {
                Err(sqlx::Error::Database(error)) if is_collision(&*error) => {}
                other => return other.map(drop),
            }
        }
        pool.execute(sqlx::raw_sql(AssertSqlSafe(statements.as_str()))).await.map(drop)
    };
    match tokio::time::timeout(PATIENCE, grant).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(TableError::Deadline(PATIENCE)),
    }
}

/// Internal error "tuple concurrently updated", or the role came into being meanwhile.
fn is_collision(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| matches!(&*code, "XX000" | "42710" | "23505"))
}

fn statements(password: &str) -> String {
    let password = literal(password);
    let mut statements = format!(
        "do $do$ begin
           if not exists (select from pg_roles where rolname = 'analyst') then
             create role analyst;
           end if;
         end $do$;
         alter role analyst with login nosuperuser nocreatedb nocreaterole
           connection limit 20 password {password};
         alter role analyst set default_transaction_read_only = on;
         alter role analyst set statement_timeout = '5min';
         alter role analyst set idle_in_transaction_session_timeout = '5min';
         revoke create on schema public from public;"
    );
    for schema in ["analytics", "read", "meta"] {
        statements.push_str(&format!(
            "grant usage on schema {schema} to analyst;
             grant select on all tables in schema {schema} to analyst;
             alter default privileges in schema {schema} grant select on tables to analyst;"
        ));
    }
    statements
}
