//! What the event store is asked, and what its errors mean to a client.

use std::time::{Duration, Instant};

use chrono::Utc;
use foldstream_core::{At, Timestamp};
use foldstream_postgres::{Execute, ExecuteError, Executed, Expected, Idempotency, Metadata};
use foldstream_service::{Problem, ProblemKind, RequestContext};

use crate::headers::Precondition;
use crate::reads;
use crate::request::{Asked, Key};
use crate::routes::Routes;

/// A version that no stream ever has.
const NEVER: u64 = i64::MAX as u64;

/// Lets the event store decide and append.
///
/// # Errors
/// Everything but a verdict of the aggregate.
pub(crate) async fn execute(
    routes: &Routes,
    asked: &Asked,
    context: &RequestContext,
    started: Instant,
) -> Result<Executed, Problem> {
    let expected = match asked.precondition {
        Precondition::None => Expected::Any,
        Precondition::Absent => Expected::NoStream,
        Precondition::Version(version) => Expected::Exact(version.get()),
        // A stream that is there stays there, so that looking before is as good as within. One that
        // is not leads to the store's own refusal, which comes after the idempotency key.
        // In a box: this rare question would make the future of every command many times as large.
        Precondition::Present if Box::pin(reads::exists(routes, &asked.id)).await? => Expected::Any,
        Precondition::Present => Expected::Exact(NEVER),
    };
    let actor = context.actor.clone();
    let now = Timestamp::from(Utc::now());
    let execute = Execute {
        aggregate: routes.registered.name(),
        stream_id: asked.id.clone(),
        command: asked.command.clone(),
        expected,
        creates: asked.creates,
        at: At { now, actor: actor.clone(), command_id: asked.command_id },
        idempotency: asked.key.clone().map(|Key { scope, key, request_hash }| Idempotency {
            scope,
            key,
            request_hash,
        }),
        metadata: Metadata {
            actor: Some(actor),
            correlation_id: Some(asked.correlation_id.clone()),
            // The message that led to the events is the command.
            causation_id: Some(asked.command_id.to_string()),
            traceparent: Some(context.traceparent.clone()),
        },
        deadline: left(routes, started),
    };
    routes.store.execute(execute).await.map_err(refused)
}

/// What is left of the time for a request that began then.
fn left(routes: &Routes, started: Instant) -> Duration {
    routes.options.deadline.saturating_sub(started.elapsed())
}

/// What a client is told. Texts from inside go to the log only.
fn refused(error: ExecuteError) -> Problem {
    match error {
        ExecuteError::VersionMismatch { current } => Problem::new(ProblemKind::VersionMismatch)
            .detail(error.to_string())
            .member("current_version", current),
        ExecuteError::Exists { current } => Problem::new(ProblemKind::Exists)
            .detail(error.to_string())
            .member("current_version", current),
        ExecuteError::Contended => Problem::new(ProblemKind::Contended),
        ExecuteError::KeyReused => Problem::new(ProblemKind::IdempotencyKeyReused),
        ExecuteError::KeyInProgress => Problem::new(ProblemKind::IdempotencyKeyInProgress),
        ExecuteError::TooLarge => Problem::new(ProblemKind::BodyTooLarge)
            .detail("the command leads to events larger than one may be"),
        ExecuteError::OutcomeUnknown => Problem::new(ProblemKind::OutcomeUnknown),
        ExecuteError::Overloaded => Problem::new(ProblemKind::Overloaded),
        ExecuteError::OutboxFull => Problem::new(ProblemKind::OutboxFull),
        ExecuteError::Unavailable(_) | ExecuteError::NoSchema(_) => {
            tracing::warn!(%error, "a command was turned away");
            Problem::new(ProblemKind::Unavailable)
        }
        ExecuteError::Broken(_) => Problem::internal(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::RETRY_AFTER;

    #[test]
    fn every_error_of_the_store_has_its_status() {
        let cases = [
            (ExecuteError::VersionMismatch { current: 3 }, 412, "version-mismatch"),
            (ExecuteError::Exists { current: 3 }, 412, "exists"),
            (ExecuteError::Contended, 409, "contended"),
            (ExecuteError::KeyReused, 422, "idempotency-key-reused"),
            (ExecuteError::KeyInProgress, 409, "idempotency-key-in-progress"),
            (ExecuteError::TooLarge, 413, "body-too-large"),
            (ExecuteError::OutcomeUnknown, 504, "outcome-unknown"),
            (ExecuteError::Overloaded, 503, "overloaded"),
            (ExecuteError::OutboxFull, 503, "outbox-full"),
            (ExecuteError::Unavailable("select secret".into()), 503, "unavailable"),
            (ExecuteError::NoSchema("shop.A".into()), 503, "unavailable"),
            (ExecuteError::Broken("select secret".into()), 500, "internal"),
        ];
        for (error, status, code) in cases {
            let problem = refused(error);
            assert_eq!((problem.status().as_u16(), problem.code()), (status, code));
            assert!(!problem.to_json(None).to_string().contains("secret"));
            let later = problem.headers().contains_key(RETRY_AFTER);
            assert_eq!(later, status == 503 || code == "idempotency-key-in-progress", "{code}");
        }
    }
    #[test]
    fn a_mismatch_tells_the_version() {
        let problem = refused(ExecuteError::VersionMismatch { current: 3 });
        assert_eq!(problem.to_json(None)["current_version"], 3);
    }
}
