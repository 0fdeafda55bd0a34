//! The registry while its database is away.

mod support;

use std::time::{Duration, Instant};

use foldstream_testkit::proxy::Proxy;
use reqwest::StatusCode;
use serde_json::json;
use support::{Server, code, record};

#[tokio::test]
async fn without_its_database_it_says_so_quickly_and_recovers() {
    let database = foldstream_testkit::database("registry").await;
    let link = Proxy::before(&database.url).await;
    let server = Server::start(&link.instead_of(&database.url)).await;
    let text = record(r#"{"name":"a","type":"int"}"#);
    server.register("sold", &text).await;

    link.down();
    let began = Instant::now();
    let refused = server.get("/subjects/sold/versions").await;
    assert_eq!(code(&refused), (500, 50001));
    assert_eq!(refused.1["message"], "Error in the backend data store");
    let refused = server.post_schema("/subjects/sold/versions", &text).await;
    assert_eq!(code(&refused), (500, 50001));
    server.registry.check().await.expect_err("it is not ready");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());

    link.heal();
    assert_eq!(server.get("/subjects/sold/versions").await, (StatusCode::OK, json!([1])));
    assert_eq!(server.register("sold", &text).await, 1);
    server.registry.check().await.expect("it is ready again");
}
