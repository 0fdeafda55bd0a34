//! A registry on a real socket over a real Postgres.

#![allow(dead_code, reason = "not every test file uses all of it")]

use foldstream_registry::Registry;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A registry that serves until it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) registry: Registry,
    client: Client,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(database_url: &str) -> Self {
        let registry = Registry::open(database_url).await.expect("the registry opens");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let router = registry.router();
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("axum's server does not end");
        });
        Self { url, registry, client: Client::new(), task }
    }

    /// Sends JSON as registry clients do and answers status and JSON.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/vnd.schemaregistry.v1+json")
                .body(body.to_string());
        }
        let response = request.send().await.expect("an answer");
        let kind = response.headers().get("content-type").cloned();
        assert_eq!(kind.expect("a content type"), "application/vnd.schemaregistry.v1+json");
        let status = response.status();
        (status, response.json().await.expect("a JSON answer"))
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, path, None).await
    }

    pub(crate) async fn post_schema(&self, path: &str, schema: &str) -> (StatusCode, Value) {
        self.send(Method::POST, path, Some(json!({ "schema": schema }))).await
    }

    /// Registers a schema that must be taken and answers its id.
    pub(crate) async fn register(&self, subject: &str, schema: &str) -> i64 {
        let path = format!("/subjects/{subject}/versions");
        let (status, answer) = self.post_schema(&path, schema).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["id"].as_i64().expect("an id")
    }

    pub(crate) async fn set_level(&self, subject: &str, level: &str) {
        let body = json!({ "compatibility": level });
        let (status, answer) =
            self.send(Method::PUT, &format!("/config/{subject}"), Some(body.clone())).await;
        assert_eq!((status, answer), (StatusCode::OK, body));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The schema of a record `Sold` with these fields.
pub(crate) fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"Sold","namespace":"shop","fields":[{fields}]}}"#)
}

/// Status and error code of a refusal.
pub(crate) fn code((status, body): &(StatusCode, Value)) -> (u16, i64) {
    assert!(body["message"].is_string(), "{body}");
    (status.as_u16(), body["error_code"].as_i64().expect("an error code"))
}
