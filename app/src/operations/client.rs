//! Asks the admin port of a running process.

use crate::{Exit, Failure};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// The answer of an admin route.
pub(super) async fn get(admin: &str, path: &str) -> Result<Value, Failure> {
    let url = format!("{}{path}", admin.trim_end_matches('/'));
    let client = Client::builder().timeout(Duration::from_secs(30)).build();
    let client = client.map_err(Failure::failed)?;
    let response = client.get(&url).send().await.map_err(|error| down(admin, error))?;
    if response.status().is_success() {
        return response.json().await.map_err(|error| down(admin, error));
    }
    Err(refused(response).await)
}

/// Nothing answers there.
pub(super) fn down(admin: &str, error: reqwest::Error) -> Failure {
    let cause = error.without_url();
    let message = format!("nothing answers at {admin} ({cause}); is `dev` running there?");
    Failure::new(Exit::DependencyDown, message)
}

/// What an answer that is not 2xx means for whoever asked.
pub(super) async fn refused(response: Response) -> Failure {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let exit = match status {
        StatusCode::BAD_REQUEST => Exit::Usage,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::SERVICE_UNAVAILABLE => Exit::DependencyDown,
        _ => Exit::Failed,
    };
    let said = body["detail"].as_str().or(body["title"].as_str()).unwrap_or_default();
    Failure::new(exit, format!("{said} ({status})"))
}
