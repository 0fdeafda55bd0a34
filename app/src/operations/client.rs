//! Asks the admin port of a running process.

use crate::{Exit, Failure};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// The answer of an admin route.
pub(super) async fn get(admin: &str, path: &str) -> Result<Value, Failure> {
    let url = format!("{}{path}", admin.trim_end_matches('/'));
    let client = Client::builder().timeout(Duration::from_secs(30)).build();
    let client = client.map_err(Failure::failed)?;
    let down = |error: reqwest::Error| {
        let cause = error.without_url();
        let message = format!("nothing answers at {admin} ({cause}); is `dev` running there?");
        Failure::new(Exit::DependencyDown, message)
    };
    let response = client.get(&url).send().await.map_err(down)?;
    let status = response.status();
    let body: Value = response.json().await.map_err(down)?;
    if status.is_success() {
        return Ok(body);
    }
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::SERVICE_UNAVAILABLE => Exit::DependencyDown,
        _ => Exit::Failed,
    };
    let said = body["detail"].as_str().or(body["title"].as_str()).unwrap_or_default();
    Err(Failure::new(exit, format!("{said} ({status})")))
}
