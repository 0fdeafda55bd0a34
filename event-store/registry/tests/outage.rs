//! The registry while its database is away.

mod support;

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use support::{Link, Server, code, record};

#[tokio::test]
async fn without_its_database_it_says_so_quickly_and_recovers() {
    let database = foldstream_testkit::database("registry").await;
    let (start, place, end) = split(&database.url);
    let target = if place.contains(':') { place.to_owned() } else { format!("{place}:5432") };
    let mut link = Link::to(&target).await;
    let server = Server::start(&format!("{start}127.0.0.1:{}{end}", link.port())).await;
    let text = record(r#"{"name":"a","type":"int"}"#);
    server.register("sold", &text).await;

    link.cut().await;
    let began = Instant::now();
    let refused = server.get("/subjects/sold/versions").await;
    assert_eq!(code(&refused), (500, 50001));
    assert_eq!(refused.1["message"], "Error in the backend data store");
    let refused = server.post_schema("/subjects/sold/versions", &text).await;
    assert_eq!(code(&refused), (500, 50001));
    server.registry.check().await.expect_err("it is not ready");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());

    link.mend().await;
    assert_eq!(server.get("/subjects/sold/versions").await, (StatusCode::OK, json!([1])));
    assert_eq!(server.register("sold", &text).await, 1);
    server.registry.check().await.expect("it is ready again");
}

/// A database address in three: up to the host, host and port, the rest.
fn split(url: &str) -> (&str, &str, &str) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let path = url[authority..].find('/').map_or(url.len(), |at| authority + at);
    let host = url[authority..path].rfind('@').map_or(authority, |at| authority + at + 1);
    (&url[..host], &url[host..path], &url[path..])
}
