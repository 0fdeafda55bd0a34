//! A server of commands with a database of its own.

use crate::tabs::Tab;
use axum::response::Response;
use foldstream_commands::{CommandMetrics, Options, Service, router};
use foldstream_core::ConsistencyToken;
use foldstream_postgres::{EventStore, StoreOptions, migrate};
use foldstream_service::RequestContext;
use foldstream_service::context::with_context;
use foldstream_service::metrics::HttpMetrics;
use foldstream_service::server::{Limits, Server};
use foldstream_testkit::proxy::Proxy;
use foldstream_testkit::{TestDatabase, database, eventually};
use prometheus::{Registry, TextEncoder};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The body that opens a tab.
pub(crate) fn tab(id: &str) -> Value {
    json!({"tab_id": id, "guest": "ann", "limit": 100})
}

pub(crate) struct App {
    pub(crate) address: SocketAddr,
    /// Between the store and its database.
    pub(crate) wire: Proxy,
    client: reqwest::Client,
    registry: Registry,
    shutdown: CancellationToken,
    database: Arc<TestDatabase>,
}

/// What a server of a test is given; everything else as it comes.
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) limits: Limits,
    /// Served beside the commands.
    pub(crate) others: axum::Router,
    /// How the store is opened.
    pub(crate) store: fn(&mut StoreOptions),
}

impl Default for Setup {
    fn default() -> Self {
        let (options, limits) = (Options::default(), Limits::default());
        Setup { options, limits, others: axum::Router::new(), store: |_| {} }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::start_as(Setup::default()).await
    }
    pub(crate) async fn start_with(options: Options) -> Self {
        Self::start_as(Setup { options, ..Setup::default() }).await
    }
    pub(crate) async fn start_beside(others: axum::Router) -> Self {
        Self::start_as(Setup { others, ..Setup::default() }).await
    }
    pub(crate) async fn start_as(setup: Setup) -> Self {
        let database = database("commands").await;
        migrate(&database.url).await.expect("an empty database");
        Self::start_over(Arc::new(database), setup).await
    }
    /// Another server with a store of its own over the same database: another process, but for the
    /// memory they share.
    pub(crate) async fn another(&self, setup: Setup) -> Self {
        Self::start_over(Arc::clone(&self.database), setup).await
    }
    async fn start_over(database: Arc<TestDatabase>, setup: Setup) -> Self {
        let Setup { options, limits, others, store: change } = setup;
        let registry = Registry::new();
        let service = Service::new("tavern").aggregate::<Tab>();
        let wire = Proxy::before(&database.url).await;
        let mut store_options =
            StoreOptions::new(wire.instead_of(&database.url), "test", service.name());
        change(&mut store_options);
        let store = EventStore::open(store_options, service.aggregates(), &registry);
        let store = store.await.expect("the database is there");
        let missing = store.missing_schemas();
        let ids: Vec<_> = (1..)
            .zip(&missing)
            .map(|(id, one)| (one.schema.full_name.clone(), id, one.schema.json.to_string()))
            .collect();
        store.learn_schemas(&ids).await.expect("new schemas");
        let http = HttpMetrics::new(&registry).expect("a new registry");
        let metrics = CommandMetrics::new(&registry).expect("a new registry");
        let routes = router(&service, store, options, metrics, http.clone()).merge(others);
        let routes = routes.layer(axum::middleware::from_fn(as_caller));
        let routes = with_context(routes, http.clone());
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(free, routes, limits, http).await.expect("a port");
        let address = server.address().expect("it is bound");
        let shutdown = CancellationToken::new();
        tokio::spawn(server.run(shutdown.clone()));
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .pool_idle_timeout(Duration::ZERO)
            .build()
            .expect("a client without TLS roots");
        Self { address, wire, client, registry, shutdown, database }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[]).await
    }
    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send(path, body.to_string().as_bytes(), &all).await
    }
    pub(crate) async fn send(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        self.send_by(&self.client, path, body, headers).await
    }
    /// A client that uses its connection again.
    pub(crate) fn keeping_connections(&self) -> reqwest::Client {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(120)).build();
        client.expect("a client without TLS roots")
    }
    pub(crate) async fn post_by(
        &self,
        client: &reqwest::Client,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.send_by(client, path, body.to_string().as_bytes(), &all).await
    }
    async fn send_by(
        &self,
        client: &reqwest::Client,
        path: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let url = format!("http://{}{path}", self.address);
        let request = client.post(url).headers(map).body(body.to_vec());
        Answer::of(request.send().await.expect("an answer")).await
    }
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.address);
        Answer::of(self.client.get(url).send().await.expect("an answer")).await
    }
    /// A request as it is written: clients tidy paths up.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(self.address).await.expect("the server listens");
        socket.write_all(request.as_bytes()).await.expect("the server reads");
        let mut bytes = Vec::new();
        let read = socket.read_to_end(&mut bytes);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time").expect("read");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        Answer::new(status.expect("a status"), headers.collect(), body.to_owned())
    }

    /// Holds all appends up until it is released or dropped; reads go on.
    pub(crate) async fn stop_appends(&self) -> Stopped {
        let mut connection = self.connect().await;
        sqlx::raw_sql("begin; lock table heads, events in exclusive mode")
            .execute(&mut connection)
            .await
            .expect("nobody else holds it");
        Stopped { holding: Mutex::new(connection), watching: Mutex::new(self.connect().await) }
    }
    /// A connection past the wire.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.database.url).await.expect("the database is there")
    }
    pub(crate) fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("valid metrics")
    }
    /// How many connections the server has.
    pub(crate) fn connections(&self) -> u64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix("http_connections "));
        line.and_then(|count| count.parse().ok()).expect("the gauge is there")
    }
}

/// Who asks, as an authenticating layer would say it; here a header of the test's own.
async fn as_caller(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let caller = request.headers().get("test-caller").and_then(|name| name.to_str().ok());
    let Some(actor) = caller.map(str::to_owned) else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    if let Some(context) = parts.extensions.get_mut::<RequestContext>() {
        context.actor = actor;
    }
    next.run(axum::extract::Request::from_parts(parts, body)).await
}

/// While it is there, appends wait.
pub(crate) struct Stopped {
    holding: Mutex<PgConnection>,
    watching: Mutex<PgConnection>,
}

impl Stopped {
    /// Returns once an append waits.
    pub(crate) async fn until_one_waits(&self) {
        let mut watching = self.watching.lock().await;
        eventually(Duration::from_secs(10), "an append to wait", async || {
            let waiting = "select exists (select from pg_locks l join pg_database d \
                           on d.oid = l.database \
                           where not l.granted and d.datname = current_database())";
            sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut *watching).await.is_ok_and(|w| w)
        })
        .await;
    }
    pub(crate) async fn release(&self) {
        let mut holding = self.holding.lock().await;
        sqlx::raw_sql("commit").execute(&mut *holding).await.expect("it holds the lock");
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: String,
    /// Null where the body is no JSON.
    pub(crate) json: Value,
}

impl Answer {
    async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self::new(status, headers, response.text().await.expect("a whole body"))
    }
    fn new(status: u16, headers: HeaderMap, body: String) -> Self {
        let json = serde_json::from_str(&body).unwrap_or_default();
        Self { status, headers, body, json }
    }
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
    pub(crate) fn token(&self) -> ConsistencyToken {
        let text = self.header("consistency-token").expect("a token");
        ConsistencyToken::parse(text).expect("one of ours")
    }
    /// It is this problem, well formed.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, &self.json["code"]), (status, &code.into()), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.json["type"], format!("/problems/{code}"));
        assert_eq!(self.json["status"], status);
        assert_eq!(self.json["trace_id"].as_str(), self.header("x-trace-id"));
        self
    }
    /// And it names this place and rule.
    #[track_caller]
    pub(crate) fn is_about(&self, pointer: &str, code: &str) -> &Self {
        let errors = self.json["errors"].as_array().expect("errors").iter();
        let named = errors.filter(|e| e["pointer"] == pointer && e["code"] == code).count();
        assert_eq!(named, 1, "{pointer} {code}: {self:?}");
        self
    }
}
