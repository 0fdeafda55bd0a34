//! A database with the tables of the sample, and a server before it.

use crate::sample::{Shape, ThingRow};
use axum::Router;
use foldstream_core::{ConsistencyToken, Date, Json, StreamRef, Timestamp, TopicPartition, Uuid};
use foldstream_queries::{Options, Queries, QueryMetrics};
use foldstream_service::context::with_context;
use foldstream_service::metrics::HttpMetrics;
use foldstream_service::server::{Limits, Server};
use foldstream_tables::{Place, migrate, pool, rows::TableSql};
use foldstream_testkit::{TestDatabase, eventually};
use prometheus::Registry;
use reqwest::header::HeaderMap;
use serde_json::Value;
use sqlx::postgres::PgPool;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const APP: &str = "test";
pub const TOPIC: &str = "test.things";
pub const STORE: Uuid = Uuid::from_u128(7);

/// A server of the sample and its database. All of it ends when this is dropped.
pub struct Api {
    pub address: String,
    pub registry: Registry,
    pub pool: PgPool,
    pub table: TableSql,
    client: reqwest::Client,
    _end: DropGuard,
    // Dropped last: the others are connected to it.
    _database: TestDatabase,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("ASCII")
    }
    /// The status and code of a problem, which must be one.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        (self.status, body["code"].as_str().expect("a code").to_owned())
    }
    pub fn data(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["data"].as_array().expect("a list").clone()
    }
}

impl Api {
    pub async fn start(hint: &str) -> Api {
        Api::start_with(hint, |_| {}).await
    }

    pub async fn start_with(hint: &str, change: impl FnOnce(&mut Options)) -> Api {
        let database = foldstream_testkit::database(hint).await;
        let model = foldstream_core::read_model::<ThingRow>();
        let builds =
            migrate(&database.url, APP, std::slice::from_ref(&model)).await.expect("migrates");
        let pool = pool(&database.url, 4, Duration::ZERO).expect("a valid URL");
        let mut options = Options::new(&database.url, APP, vec![model], [42; 32]);
        options.connections = 6;
        // Unoptimised, on two cores that all tests share, a first connection takes its time.
        options.pool_wait = Duration::from_secs(3);
        change(&mut options);
        let registry = Registry::new();
        let metrics = QueryMetrics::new(&registry).expect("a fresh registry");
        let http = HttpMetrics::new(&registry).expect("a fresh registry");
        let queries = Queries::open(options, metrics, http.clone()).expect("valid options");
        let (address, _end) = serve(queries.router(), http).await;
        let table = TableSql::new(builds[0].place);
        let client = reqwest::Client::new();
        Api { address, registry, pool, table, client, _end, _database: database }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            request.timeout(Duration::from_secs(20)).send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("UTF-8") }
    }

    pub async fn write(&self, rows: &[ThingRow]) {
        self.write_to(&self.table, rows).await;
    }

    pub async fn write_to(&self, table: &TableSql, rows: &[ThingRow]) {
        let mut rows: Vec<&ThingRow> = rows.iter().collect();
        rows.sort_by_key(|row| (row.name.clone(), row.number));
        let mut connection = self.pool.acquire().await.expect("a connection");
        table.upsert(&mut connection, &rows).await.expect("written");
    }

    pub async fn remove(&self, row: &ThingRow) {
        sqlx::query("delete from rm_things_b1.things where name = $1 and number = $2")
            .bind(&row.name)
            .bind(row.number)
            .execute(&self.pool)
            .await
            .expect("deleted");
    }

    /// Moves the checkpoint of one partition of build 1.
    pub async fn checkpoint(&self, partition: i32, position: i64) {
        self.checkpoint_of(1, partition, position).await;
    }

    pub async fn checkpoint_of(&self, build: i32, partition: i32, position: i64) {
        sqlx::query(
            "insert into meta.checkpoints
               (read_model, build, topic, partition, position, store_id, last_event_at)
             values ('things', $1, $2, $3, $4, $5, now() - interval '2 s')
             on conflict (read_model, build, topic, partition)
             do update set position = excluded.position, store_id = excluded.store_id",
        )
        .bind(build)
        .bind(TOPIC)
        .bind(partition)
        .bind(position)
        .bind(STORE)
        .execute(&self.pool)
        .await
        .expect("written");
    }

    /// Until so many reads wait for their token.
    pub async fn waiting(&self, reads: usize) {
        eventually(Duration::from_secs(4), "reads that wait", async || {
            let families = self.registry.gather();
            let gauge = families.iter().find(|f| f.name() == "consistency_token_waiting");
            gauge.is_some_and(|g| g.get_metric()[0].get_gauge().get_value() as usize == reads)
        })
        .await;
    }

    /// Makes build 2 with an empty table; it is not live yet.
    pub async fn second_build(&self) -> TableSql {
        let place = Place::new(self.table.place().table, 2);
        let mut statements = foldstream_tables::definition::create(&place);
        statements.push(foldstream_tables::definition::primary_key(&place));
        statements.push(
            "insert into meta.builds (read_model, build, version, state, declaration)
             select read_model, 2, version, 'building', declaration from meta.builds"
                .to_owned(),
        );
        statements.push(
            "insert into meta.lineage select read_model, 2, topic, kind from meta.lineage"
                .to_owned(),
        );
        self.sql(&statements.join(";")).await;
        TableSql::new(place)
    }

    /// Makes build 2 the live one.
    pub async fn swap(&self) {
        self.sql(
            "begin; update meta.builds set state = 'replaced' where build = 1;
             update meta.builds set state = 'live' where build = 2; commit",
        )
        .await;
    }

    pub async fn sql(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&self.pool).await.expect("runs");
    }
}

/// Serves these routes until the guard is dropped.
pub async fn serve(router: Router, http: HttpMetrics) -> (String, DropGuard) {
    let router = with_context(router, http.clone());
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(any, router, Limits::default(), http).await.expect("binds");
    let address = format!("http://{}", server.address().expect("bound"));
    let end = CancellationToken::new();
    tokio::spawn(server.run(end.clone()));
    (address, end.drop_guard())
}

/// A row of this key; the other columns follow from the number.
pub fn thing(name: &str, number: i32) -> ThingRow {
    ThingRow {
        name: name.to_owned(),
        number,
        shape: None,
        price: None,
        made_on: Date::from_ymd_opt(2010, 12, 1).expect("a date"),
        seen_at: Timestamp::from_micros(i64::from(number) * 1_500_000),
        count: i64::from(number),
        sold: number % 2 == 0,
        tag: None,
        look: Shape::Round,
        extra: Json(vec![1, 2]),
        secret: "not for everyone".to_owned(),
    }
}

/// The text of a token that asks for this position.
pub fn token(partition: i32, position: u64) -> String {
    token_of(STORE, TOPIC, partition, position)
}

pub fn token_of(store: Uuid, topic: &str, partition: i32, position: u64) -> String {
    let at = TopicPartition::new(topic, partition);
    ConsistencyToken::at(store, at, position, StreamRef::new(topic, "x")).encode()
}
