//! What happens when something goes wrong while a command runs.

use crate::server::{App, tab};
use foldstream_commands::Options;
use foldstream_testkit::eventually;
use serde_json::json;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_client_that_hangs_up_cancels_nothing() {
    let app = App::start().await;
    let stopped = app.stop_appends().await;
    let body = tab("1").to_string();
    let request = format!(
        "POST /v1/guest-tabs HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = TcpStream::connect(app.address).await.expect("the server listens");
    socket.write_all(request.as_bytes()).await.expect("the server reads");
    stopped.until_one_waits().await;
    drop(socket);
    eventually(PATIENCE, "the server to see the hang-up", async || app.connections() == 0).await;
    assert_eq!(app.get("/v1/guest-tabs/1/history").await.status, 404);
    stopped.release().await;
    eventually(PATIENCE, "the command to take effect", async || {
        app.get("/v1/guest-tabs/1/history").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn an_open_outcome_at_the_deadline_is_504_and_the_key_tells_it() {
    let deadline = Duration::from_secs(1);
    let app = App::start_with(Options { deadline, ..Options::default() }).await;
    // The writer of this stream is connected from here on: the next command reaches the database.
    let round = "/v1/guest-tabs/1/commands/order-round";
    app.post(round, &json!({"items": []})).await.is_problem(409, "tab-not-open");
    let stopped = app.stop_appends().await;
    let key = [("idempotency-key", "k")];
    let answer = app.post_with("/v1/guest-tabs", &tab("1"), &key).await;
    answer.is_problem(504, "outcome-unknown");
    stopped.release().await;
    let told = eventually(PATIENCE, "the outcome to be known", async || {
        let answer = app.post_with("/v1/guest-tabs", &tab("1"), &key).await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    assert_eq!(told.json["version"], 1);
    let history = app.get("/v1/guest-tabs/1/history").await;
    assert_eq!(history.json["data"].as_array().map(Vec::len), Some(1), "one effect");
}

#[tokio::test]
async fn more_than_fit_are_turned_away_at_once() {
    let app = App::start_with(Options { max_in_flight: 1, ..Options::default() }).await;
    let stopped = app.stop_appends().await;
    let body = tab("1");
    let first = app.post("/v1/guest-tabs", &body);
    let second = async {
        stopped.until_one_waits().await;
        let told = app.post("/v1/guest-tabs", &tab("2")).await;
        stopped.release().await;
        told
    };
    let (first, told) = tokio::join!(first, second);
    assert_eq!(first.status, 201);
    told.is_problem(503, "overloaded");
    assert!(told.header("retry-after").is_some());
    // The first one's room is free once its answer was sent to the end.
    eventually(PATIENCE, "the second one to have had no effect", async || {
        app.get("/v1/guest-tabs/2/history").await.status == 404
    })
    .await;
}

#[tokio::test]
async fn without_its_database_it_says_503_and_recovers() {
    let deadline = Duration::from_secs(2);
    let app = App::start_with(Options { deadline, ..Options::default() }).await;
    assert_eq!(app.post("/v1/guest-tabs", &tab("1")).await.status, 201);
    app.wire.down();
    for path in ["/v1/guest-tabs/1/state", "/v1/guest-tabs/1/history"] {
        let answer = app.get(path).await;
        answer.is_problem(503, "unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    // Where a connection broke with the command already on it, only the database knows: 504.
    let answer = app.post("/v1/guest-tabs", &tab("2")).await;
    assert!(matches!(answer.status, 503 | 504), "{answer:?}");
    let answer = eventually(PATIENCE, "a command that was surely not sent", async || {
        let answer = app.post("/v1/guest-tabs", &tab("3")).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    answer.is_problem(503, "unavailable");
    assert!(answer.header("retry-after").is_some());
    app.wire.heal();
    eventually(PATIENCE, "commands to be taken again", async || {
        app.post("/v1/guest-tabs", &tab("4")).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn many_at_once_have_one_winner_each() {
    let app = App::start().await;
    let bodies: Vec<_> = (0..40)
        .map(|n| {
            let mut body = tab(&format!("{}", n % 4));
            body["limit"] = n.into();
            body
        })
        .collect();
    let mut created = 0;
    for chunk in bodies.chunks(20) {
        let answers = chunk.iter().map(|body| app.post("/v1/guest-tabs", body));
        for answer in futures_util::future::join_all(answers).await {
            match answer.status {
                201 => created += 1,
                _ => assert_eq!(answer.is_problem(409, "tab-exists").status, 409),
            }
        }
    }
    assert_eq!(created, 4);
    let state = app.get("/v1/guest-tabs/0/state").await;
    assert_eq!(state.json["version"], json!(1));
}
