//! What the registry answers when it does not do what was asked.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::answer;

/// A refusal in the form that clients of a Confluent registry expect: an HTTP status, an
/// error code whose first three digits are that status, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// A refusal that says no more than its HTTP status does.
    pub(crate) fn plain(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, u32::from(status.as_u16()), message)
    }

    pub(crate) fn no_route() -> Self {
        Self::plain(StatusCode::NOT_FOUND, "HTTP 404 Not Found")
    }

    pub(crate) fn subject_not_found(subject: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, 40401, format!("Subject '{subject}' not found."))
    }

    pub(crate) fn version_not_found(version: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, 40402, format!("Version {version} not found."))
    }

    pub(crate) fn schema_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, 40403, "Schema not found")
    }

    pub(crate) fn schema_id_not_found(id: i32) -> Self {
        Self::new(StatusCode::NOT_FOUND, 40403, format!("Schema {id} not found"))
    }

    pub(crate) fn subject_soft_deleted(subject: &str) -> Self {
        let message = format!(
            "Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"
        );
        Self::new(StatusCode::NOT_FOUND, 40404, message)
    }

    pub(crate) fn subject_not_soft_deleted(subject: &str) -> Self {
        let message =
            format!("Subject '{subject}' was not deleted first before being permanently deleted");
        Self::new(StatusCode::NOT_FOUND, 40405, message)
    }

    pub(crate) fn version_soft_deleted(subject: &str, version: i32) -> Self {
        let message = format!(
            "Subject '{subject}' Version {version} was soft deleted. \
             Set permanent=true to delete permanently"
        );
        Self::new(StatusCode::NOT_FOUND, 40406, message)
    }

    pub(crate) fn version_not_soft_deleted(subject: &str, version: i32) -> Self {
        let message = format!(
            "Subject '{subject}' Version {version} was not deleted first \
             before being permanently deleted"
        );
        Self::new(StatusCode::NOT_FOUND, 40407, message)
    }

    pub(crate) fn level_not_configured(subject: &str) -> Self {
        let message =
            format!("Subject '{subject}' does not have subject-level compatibility configured");
        Self::new(StatusCode::NOT_FOUND, 40408, message)
    }

    pub(crate) fn mode_not_configured(subject: &str) -> Self {
        let message = format!("Subject '{subject}' does not have subject-level mode configured");
        Self::new(StatusCode::NOT_FOUND, 40409, message)
    }

    pub(crate) fn incompatible(subject: &str, details: &[String]) -> Self {
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \
             \"{subject}\", details: [{}]",
            details.join(", ")
        );
        Self::plain(StatusCode::CONFLICT, message)
    }

    pub(crate) fn invalid_schema(reason: impl std::fmt::Display) -> Self {
        Self::unprocessable(42201, format!("Invalid schema: {reason}"))
    }

    pub(crate) fn invalid_version(version: &str) -> Self {
        let message = format!(
            "The specified version '{version}' is not a valid version id. \
             Allowed values are between [1, 2^31-1] and the string \"latest\""
        );
        Self::unprocessable(42202, message)
    }

    pub(crate) fn invalid_level() -> Self {
        Self::unprocessable(
            42203,
            "Invalid compatibility level. Valid values are none, backward, forward, full, \
             backward_transitive, forward_transitive, and full_transitive",
        )
    }

    pub(crate) fn invalid_mode() -> Self {
        let message = "Invalid mode. Valid values are READWRITE, READONLY and READONLY_OVERRIDE";
        Self::unprocessable(42204, message)
    }

    pub(crate) fn read_only(subject: &str) -> Self {
        let what =
            if subject.is_empty() { "The registry".into() } else { format!("Subject {subject}") };
        Self::unprocessable(42205, format!("{what} is in read-only mode"))
    }

    pub(crate) fn import_not_supported() -> Self {
        Self::unprocessable(42205, "This registry gives ids and versions itself: no import mode")
    }

    pub(crate) fn invalid_subject() -> Self {
        Self::unprocessable(
            42208,
            "A subject has 1 to 512 characters, none of them a control character",
        )
    }

    fn unprocessable(code: u32, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The store did not answer, or not in time. What it said goes to the log, not to the client.
    pub(crate) fn store(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "the schema store failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50001, "Error in the backend data store")
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::store(&error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error_code": self.code, "message": self.message });
        answer::json(self.status, &body)
    }
}
