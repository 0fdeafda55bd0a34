//! The server over real sockets: what it bears, what it refuses, how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use foldstream_service::admission::Admission;
use foldstream_service::context::with_context;
use foldstream_service::health::{Health, admin_router};
use foldstream_service::json::{BodyLimit, JsonBody, decode};
use foldstream_service::metrics::{HttpMetrics, process_registry};
use foldstream_service::openapi::{Document, docs_router};
use foldstream_service::problem::problems_router;
use foldstream_service::server::{Limits, Server, detached};
use foldstream_service::{Problem, RequestContext};
use prometheus::Registry;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
struct Thing {
    name: String,
    count: i64,
}

/// What the routes of the test share: work waits for `gate`, then counts in `done`.
#[derive(Clone)]
struct Work {
    gate: Arc<Semaphore>,
    begun: Arc<AtomicU32>,
    done: Arc<AtomicU32>,
}

impl Work {
    async fn run(self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let passed = self.gate.acquire().await.expect("the gate is never closed");
        passed.forget();
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}

struct Running {
    address: SocketAddr,
    work: Work,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

async fn make(JsonBody(body): JsonBody) -> Result<String, Problem> {
    let thing: Thing = decode(&body)?;
    Ok(format!("{} {}", thing.name, thing.count))
}

async fn wait(Extension(work): Extension<Work>) -> Result<&'static str, Problem> {
    detached(async move {
        work.run().await;
        "done"
    })
    .await
}

async fn explode() -> &'static str {
    panic!("the secret of the house")
}

async fn explode_detached() -> Result<(), Problem> {
    detached(async { panic!("the secret of the house") }).await
}

async fn context(context: RequestContext) -> Json<[String; 2]> {
    Json([context.trace_id, context.traceparent])
}

async fn start(limits: Limits) -> Running {
    let registry: Registry = process_registry("test", "0", "test").expect("labels are valid");
    let metrics = HttpMetrics::new(&registry).expect("the registry is new");
    let work =
        Work { gate: Arc::new(Semaphore::new(0)), begun: Arc::default(), done: Arc::default() };
    let guarded = Router::new().route("/guarded", get(wait));
    let health = Health::new();
    health.set_started();
    let router = Router::new()
        .route("/things", post(make).get(|| async { "all" }))
        .route("/things/{id}", get(|| async { "one" }))
        .route("/small", post(make).layer(Extension(BodyLimit(16))))
        .route("/wait", get(wait))
        .route("/explode", get(explode))
        .route("/explode-detached", get(explode_detached))
        .route("/context", get(context))
        .route("/large", get(|| async { vec![b'x'; 64 * 1024 * 1024] }))
        .merge(Admission::new("test", 1, metrics.clone()).guard(guarded))
        .merge(admin_router(health, registry))
        .merge(problems_router())
        .merge(docs_router(&Document::new("Test", "1", "A test").into_json()))
        .layer(Extension(work.clone()));
    let router = with_context(router, metrics.clone());
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, router, limits, metrics.clone()).await.expect("a port");
    let address = server.address().expect("it is bound");
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.run(shutdown.clone()));
    Running { address, work, metrics, shutdown, task }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends raw bytes and reads until the server closes.
    async fn send(&self, request: impl AsRef<[u8]>) -> String {
        let mut socket = self.connect().await;
        socket.write_all(request.as_ref()).await.expect("it takes the request");
        read_all(&mut socket).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(head("GET", path, "")).await
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.send(head("POST", path, &more) + body).await
    }
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{more}\r\n")
}

async fn read_all(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await;
    reading.expect("the server answers and closes in time").expect("no reset");
    String::from_utf8(bytes).expect("an answer in UTF-8")
}

/// Reads until the answer holds `text`.
async fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let count = socket.read_buf(&mut bytes).await.expect("no reset");
            assert!(count > 0, "closed after {}", String::from_utf8_lossy(&bytes));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the text comes in time");
    String::from_utf8(bytes).expect("an answer in UTF-8")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[track_caller]
fn assert_problem(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    assert!(answer.contains("x-trace-id: "), "{answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    assert!(answer.contains("\"trace_id\":\""), "{answer}");
}

fn quick() -> Limits {
    Limits {
        header_deadline_ms: 150,
        body_deadline_ms: 150,
        idle_deadline_ms: 300,
        write_deadline_ms: 200,
        drain_deadline_ms: 500,
        ..Limits::default()
    }
}

#[tokio::test]
async fn bodies_that_are_not_strict_json_are_refused_with_the_place() {
    let server = start(Limits::default()).await;
    let ok = server.post("/things", r#"{"name":"a","count":2}"#).await;
    assert!(ok.ends_with("a 2"), "{ok}");
    let deep = "[".repeat(33) + &"]".repeat(33);
    for (body, status, code, place) in [
        (r#"{"name":"a","name":"b","count":1}"#, 400, "malformed-json", "/name"),
        (deep.as_str(), 400, "malformed-json", "too-deep"),
        ("\u{feff}{}", 400, "malformed-json", "byte order mark"),
        ("{}x", 400, "malformed-json", "trailing"),
        ("", 400, "malformed-json", "empty"),
        (r#"["a",1]"#, 422, "invalid-body", "wrong-type"),
        (r#"{"name":"a","count":1.0}"#, 422, "invalid-body", "/count"),
        (r#"{"name":"a\u0000","count":1}"#, 422, "invalid-body", "/name"),
        (r#"{"name":"a","count":1,"x":1}"#, 422, "invalid-body", "/x"),
        (r#"{"name":"a"}"#, 422, "invalid-body", "/count"),
    ] {
        let answer = server.post("/things", body).await;
        assert_problem(&answer, status, code);
        assert!(answer.contains(place), "{body}: {answer}");
    }
    let plain = head("POST", "/things", "Content-Type: text/plain\r\nContent-Length: 2\r\n");
    assert_problem(&server.send(plain + "{}").await, 415, "unsupported-media-type");
}

#[tokio::test]
async fn a_body_too_large_is_413_at_once_declared_or_chunked() {
    let server = start(Limits::default()).await;
    // Declared: answered although not a byte of the body was sent.
    let json = "Content-Type: application/json\r\n";
    let declared = head("POST", "/things", &format!("{json}Content-Length: 262145\r\n"));
    assert_problem(&server.send(declared).await, 413, "body-too-large");
    // Chunked: answered although the body has no end.
    let chunked = head("POST", "/things", &format!("{json}Transfer-Encoding: chunked\r\n"));
    let body = format!("{:x}\r\n{}\r\n", 262_145, "x".repeat(262_145));
    assert_problem(&server.send(chunked + &body).await, 413, "body-too-large");
    let small = server.post("/small", r#"{"name":"a","count":2}"#).await;
    assert_problem(&small, 413, "body-too-large");
    // An upload far beyond the limit still sees the answer instead of a reset.
    let upload = server.post("/things", &"x".repeat(2 * 1024 * 1024)).await;
    assert_problem(&upload, 413, "body-too-large");
}

#[tokio::test]
async fn slow_heads_bodies_idle_connections_and_readers_are_cut() {
    let server = start(quick()).await;
    let begun = Instant::now();
    assert_eq!(server.send("GET /things HT").await, "", "a head that never ends");
    assert_eq!(server.send("").await, "", "a connection without a request");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    // One byte every 20 ms does not help: the deadline is for the whole head.
    let mut dribble = server.connect().await;
    let begun = Instant::now();
    let mut cut = false;
    while !cut {
        assert!(begun.elapsed() < PATIENCE, "a byte now and then keeps it open");
        cut = dribble.write_all(b"G").await.is_err();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());

    let slow = head("POST", "/things", "Content-Type: application/json\r\nContent-Length: 9\r\n");
    assert_problem(&server.send(slow + "{").await, 408, "request-timeout");

    // A second request on the same connection, then silence: closed as idle, not before.
    let mut idle = server.connect().await;
    for _ in 0..2 {
        idle.write_all(b"GET /things HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("open");
        read_until(&mut idle, "all").await;
    }
    let begun = Instant::now();
    assert_eq!(read_all(&mut idle).await, "");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());

    // A client that takes nothing of a large answer.
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("open");
    let mut first = [0_u8; 1];
    deaf.read_exact(&mut first).await.expect("the answer begins");
    let registry = server.metrics.clone();
    until("the deaf client is cut", || registry.open_connections() == 0).await;
}

#[tokio::test]
async fn what_breaks_http_is_refused() {
    let server = start(Limits::default()).await;
    let close = "Connection: close\r\n\r\n";
    for request in [
        format!("GET /things HTTP/1.1\r\n{close}"),
        format!("GET /things HTTP/1.1\r\nHost: a\r\nHost: a\r\n{close}"),
        format!("GET http://evil.example/things HTTP/1.1\r\nHost: test\r\n{close}"),
        format!("GET /things HTTP/1.1\r\nHost: a b\r\n{close}"),
    ] {
        assert_problem(&server.send(&request).await, 400, "bad-request");
    }
    let own = format!("GET http://test/things HTTP/1.1\r\nHost: test\r\n{close}");
    assert!(server.send(own).await.starts_with("HTTP/1.1 200"));
    let long = format!("/things?{}", "x".repeat(9_000));
    assert_problem(&server.get(&long).await, 414, "uri-too-long");
    let many = (0..101).map(|i| format!("X-{i}: y\r\n")).collect::<String>();
    assert!(server.send(head("GET", "/things", &many)).await.starts_with("HTTP/1.1 431"));
    let large = format!("X: {}\r\n", "y".repeat(40_000));
    assert_problem(&server.send(head("GET", "/things", &large)).await, 431, "header-too-large");
    let endless = format!("X: {}\r\n", "y".repeat(1_000_000));
    assert!(server.send(head("GET", "/things", &endless)).await.starts_with("HTTP/1.1 431"));
    // Both lengths: chunked counts, and the connection ends, so nothing can be smuggled behind.
    let both = "POST /things HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
        Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let behind = "GET /things HTTP/1.1\r\nHost: test\r\n\r\n";
    let answer = server.send(format!("{both}{behind}")).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn unknown_paths_methods_and_panics_are_problems() {
    let server = start(Limits::default()).await;
    assert_problem(&server.get("/nothing").await, 404, "not-found");
    assert_problem(&server.get("/things/").await, 404, "not-found");
    let wrong = server.send(head("DELETE", "/things", "")).await;
    assert_problem(&wrong, 405, "method-not-allowed");
    let allow = wrong.lines().find_map(|line| line.strip_prefix("allow: "));
    let mut allow: Vec<_> = allow.expect("Allow").split(',').map(str::trim).collect();
    allow.sort_unstable();
    assert_eq!(allow, ["GET", "HEAD", "POST"]);
    for path in ["/explode", "/explode-detached"] {
        let answer = server.get(path).await;
        assert_problem(&answer, 500, "internal");
        assert!(!answer.contains("secret"), "{answer}");
    }
    assert!(server.get("/things").await.ends_with("all"), "it goes on");
    let text = server.get("/metrics").await;
    let count = |labels: &str, count: u32| {
        let name = "http_server_request_duration_seconds_count";
        let line = format!("{name}{{{labels}}} {count}");
        assert!(text.contains(&line), "{line}\n{text}");
    };
    count(r#"method="DELETE",route="/things",status="405""#, 1);
    count(r#"method="GET",route="unmatched",status="404""#, 2);
    assert!(text.contains(r#"build_info{app="test",role="test",version="0"} 1"#), "{text}");
    assert!(text.contains("process_resident_memory_bytes "), "{text}");
}

#[tokio::test]
async fn the_trace_of_the_client_is_kept_and_answered() {
    let server = start(Limits::default()).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let sent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
    let answer = server.send(head("GET", "/context", &sent)).await;
    assert!(answer.contains(&format!("x-trace-id: {trace}")), "{answer}");
    assert!(answer.contains(&format!("[\"{trace}\",\"00-{trace}-")), "{answer}");
    let answer = server.send(head("GET", "/nothing", &sent)).await;
    assert!(answer.contains(&format!("\"trace_id\":\"{trace}\"")), "{answer}");
}

#[tokio::test]
async fn hanging_up_does_not_cancel_the_work() {
    let server = start(Limits::default()).await;
    let mut socket = server.connect().await;
    socket.write_all(head("GET", "/wait", "").as_bytes()).await.expect("open");
    until("the work begins", || server.work.begun.load(Ordering::SeqCst) == 1).await;
    drop(socket);
    let metrics = server.metrics.clone();
    until("the server sees the hang-up", || metrics.open_connections() == 0).await;
    assert_eq!(server.work.done.load(Ordering::SeqCst), 0);
    server.work.gate.add_permits(1);
    until("the work ends", || server.work.done.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn beyond_the_permits_requests_are_shed_even_after_a_hang_up() {
    let server = start(Limits::default()).await;
    let mut first = server.connect().await;
    first.write_all(head("GET", "/guarded", "").as_bytes()).await.expect("open");
    until("the first begins", || server.work.begun.load(Ordering::SeqCst) == 1).await;
    let shed = server.get("/guarded").await;
    assert_problem(&shed, 503, "overloaded");
    assert!(shed.contains("retry-after: "), "{shed}");
    // The first hangs up, but its work goes on and keeps its room.
    drop(first);
    let metrics = server.metrics.clone();
    until("the server sees the hang-up", || metrics.open_connections() == 0).await;
    assert_problem(&server.get("/guarded").await, 503, "overloaded");
    assert_eq!(server.metrics.shed_count("test"), 2);
    assert!(server.get("/things").await.ends_with("all"), "other routes go on");
    server.work.gate.add_permits(2);
    until("the first ends", || server.work.done.load(Ordering::SeqCst) == 1).await;
    assert!(server.get("/guarded").await.ends_with("done"));
}

#[tokio::test]
async fn beyond_the_cap_connections_are_told_so() {
    let server = start(Limits { max_connections: 2, ..Limits::default() }).await;
    let held = [server.connect().await, server.connect().await];
    let metrics = server.metrics.clone();
    until("both are open", || metrics.open_connections() == 2).await;
    let answer = server.get("/things").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1") && answer.contains("\"overloaded\""), "{answer}");
    assert_eq!(server.metrics.shed_count("connections"), 1);
    drop(held);
    until("both are closed", || metrics.open_connections() == 0).await;
    assert!(server.get("/things").await.ends_with("all"));
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_no_more() {
    let server = start(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /things HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("open");
    read_until(&mut idle, "all").await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("open");
    until("the work begins", || server.work.begun.load(Ordering::SeqCst) == 1).await;
    server.shutdown.cancel();
    assert_eq!(read_all(&mut idle).await, "", "idle connections are closed");
    assert!(TcpStream::connect(server.address).await.is_err(), "nothing listens");
    assert!(!server.task.is_finished());
    server.work.gate.add_permits(1);
    let answer = read_all(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("no panic");
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let server = start(quick()).await;
    let mut busy = server.connect().await;
    busy.write_all(head("GET", "/wait", "").as_bytes()).await.expect("open");
    until("the work begins", || server.work.begun.load(Ordering::SeqCst) == 1).await;
    let begun = Instant::now();
    server.shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.task).await.expect("in time").expect("no panic");
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(read_all(&mut busy).await, "");
}

#[tokio::test]
async fn probes_and_documents_are_served() {
    let server = start(Limits::default()).await;
    for path in ["/livez", "/readyz", "/startupz"] {
        let answer = server.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ok\""), "{answer}");
    }
    let problem = server.get("/problems/version-mismatch").await;
    assert!(problem.starts_with("HTTP/1.1 200") && problem.contains("412"), "{problem}");
    assert_problem(&server.get("/problems/none").await, 404, "not-found");
    let json = server.get("/openapi.json").await;
    assert!(json.contains("\"openapi\":\"3.1.0\""), "{json}");
    let page = server.get("/docs").await;
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'nonce-"));
    assert!(!page.contains("{{nonce}}"));
}
