//! The answers to commands. They follow from the verdict alone, so that a verdict that is given
//! again is the same answer, byte for byte.

use axum::body::Body;
use axum::response::Response;
use foldstream_core::{ConsistencyToken, Refused};
use foldstream_postgres::{EventRef, Executed, Verdict};
use foldstream_service::{FieldError, Problem};
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::headers::{CONSISTENCY_TOKEN, IDEMPOTENCY_REPLAYED};
use crate::metrics::Outcome;
use crate::request::Asked;
use crate::service::Registered;

/// The answer to what the event store made of a command.
///
/// # Errors
/// The rule's own problem where the aggregate refused.
pub(crate) fn of(
    registered: &Registered,
    asked: &Asked,
    creating: bool,
    executed: Executed,
) -> Result<(Response, Outcome), Problem> {
    let Executed { verdict, token, replayed } = executed;
    let token = merged(token, &asked.token);
    match verdict {
        Verdict::Refused(refused) => Err(marked(problem(refused), &token, replayed)),
        Verdict::Accepted { version, events } => {
            let outcome = match (replayed, events.is_empty()) {
                (true, _) => Outcome::Replayed,
                (false, true) => Outcome::Unchanged,
                (false, false) => Outcome::Accepted,
            };
            let aggregate = registered.name();
            let id_field = registered.commands.id_field();
            let accepted =
                Accepted { aggregate, id_field, id: &asked.id, version, events: &events };
            let mut response = accepted.response(creating)?;
            mark(response.headers_mut(), &token, replayed);
            Ok((response, outcome))
        }
    }
}

/// What the command reached and what the client had seen before. Positions of a store that is no
/// more are left behind: this store's own are the true ones.
fn merged(mut reached: ConsistencyToken, seen: &ConsistencyToken) -> ConsistencyToken {
    let foreign = |topic: &str| {
        let ours = reached.stores.get(topic);
        ours.is_some_and(|ours| seen.stores.get(topic) != Some(ours))
    };
    let mut seen = seen.clone();
    seen.positions.retain(|at, _| !foreign(&at.topic));
    seen.streams.retain(|stream| !foreign(&stream.topic));
    seen.stores.retain(|topic, _| !foreign(topic));
    reached.merge(&seen);
    reached
}

fn problem(refused: Refused) -> Problem {
    // Refusals are 409 or 422; a stored one of another version of this program may be another.
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    let problem = Problem::domain(status, refused.code.clone(), refused.detail.clone());
    match refused.pointer {
        Some(pointer) => problem.error(FieldError::new(pointer, refused.code, refused.detail)),
        None => problem,
    }
}

fn marked(problem: Problem, token: &ConsistencyToken, replayed: bool) -> Problem {
    let mut headers = HeaderMap::new();
    mark(&mut headers, token, replayed);
    headers
        .iter()
        .fold(problem, |problem, (name, value)| problem.header(name.clone(), value.clone()))
}

fn mark(headers: &mut HeaderMap, token: &ConsistencyToken, replayed: bool) {
    // A token is base64url, which every header can hold.
    if let (false, Ok(value)) = (token.is_empty(), HeaderValue::try_from(token.encode())) {
        headers.insert(CONSISTENCY_TOKEN, value);
    }
    if replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
}

/// `{"stream":"invoices/536365","invoice_id":"536365","version":1,"events":[…]}`
struct Accepted<'a> {
    aggregate: &'a str,
    id_field: &'a str,
    id: &'a str,
    version: u64,
    events: &'a [EventRef],
}

impl Serialize for Accepted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(4))?;
        members.serialize_entry("stream", &format_args!("{}/{}", self.aggregate, self.id))?;
        members.serialize_entry(self.id_field, self.id)?;
        members.serialize_entry("version", &self.version)?;
        members.serialize_entry("events", self.events)?;
        members.end()
    }
}

impl Accepted<'_> {
    fn response(&self, creating: bool) -> Result<Response, Problem> {
        let body = serde_json::to_vec(self).map_err(|error| Problem::internal(&error))?;
        let mut response = json(body);
        if creating && self.events.first().is_some_and(|event| event.version == 1) {
            *response.status_mut() = StatusCode::CREATED;
            let location = format!("/v1/{}/{}", self.aggregate, self.id);
            let location = HeaderValue::try_from(location).map_err(|e| Problem::internal(&e))?;
            response.headers_mut().insert(LOCATION, location);
        }
        let tag = HeaderValue::try_from(format!("\"{}\"", self.version));
        response.headers_mut().insert(ETAG, tag.map_err(|e| Problem::internal(&e))?);
        Ok(response)
    }
}

/// 200 with this JSON.
pub(crate) fn json(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldstream_core::{StreamRef, TopicPartition, Uuid};

    fn token(topic: &str, store: u128, position: u64) -> ConsistencyToken {
        let at = TopicPartition::new(topic, 0);
        ConsistencyToken::at(Uuid::from_u128(store), at, position, StreamRef::new(topic, "1"))
    }

    #[test]
    fn tokens_grow_and_never_go_back() {
        let both = merged(token("a", 1, 3), &token("b", 2, 9));
        assert_eq!(both.positions.len(), 2);
        assert_eq!(merged(token("a", 1, 3), &token("a", 1, 9)), token("a", 1, 9));
        assert_eq!(merged(token("a", 1, 9), &token("a", 1, 3)), token("a", 1, 9));
        let nothing = ConsistencyToken::default();
        assert_eq!(merged(nothing.clone(), &token("a", 1, 3)), token("a", 1, 3));
        assert_eq!(merged(token("a", 1, 3), &nothing), token("a", 1, 3));
    }
    #[test]
    fn positions_of_another_store_are_left_behind() {
        assert_eq!(merged(token("a", 1, 3), &token("a", 2, 9)), token("a", 1, 3));
    }
    #[test]
    fn the_id_stands_beside_the_stream() {
        let event = EventRef { id: Uuid::nil(), name: "Opened".into(), version: 1 };
        let (aggregate, id_field, id) = ("accounts", "account_id", "7");
        let answer = Accepted { aggregate, id_field, id, version: 1, events: &[event] };
        let json = serde_json::to_string(&answer).unwrap();
        let beginning = r#"{"stream":"accounts/7","account_id":"7","version":1,"events":[{"id":"#;
        assert!(json.starts_with(beginning), "{json}");
        assert!(json.ends_with(r#","type":"Opened","version":1}]}"#), "{json}");
    }
}
