//! From a request to a command: everything that can be said without the event store.

use foldstream_core::{AnyCommand, ConsistencyToken, Uuid, check_stream_id};
use foldstream_service::{FieldError, Problem, ProblemKind, RequestContext};
use serde_json::Value;

use crate::headers::{CommandHeaders, Precondition};
use crate::identity;
use crate::service::{CommandInfo, Registered};

/// A request that was read to its end and found sound: what the event store is asked.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) command: AnyCommand,
    /// Whether the command creates the aggregate.
    pub(crate) creates: bool,
    /// The same again for the same idempotency key.
    pub(crate) command_id: Uuid,
    pub(crate) key: Option<Key>,
    pub(crate) precondition: Precondition,
    /// What the client has seen.
    pub(crate) token: ConsistencyToken,
    pub(crate) correlation_id: String,
}

/// An idempotency key with all that it is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) scope: String,
    pub(crate) key: String,
    pub(crate) request_hash: [u8; 32],
}

impl Key {
    /// What ids that the server makes follow from.
    fn id(&self) -> Uuid {
        identity::of_key(&self.scope, &self.key)
    }
    fn command_id(&self) -> Uuid {
        identity::of_command(&self.id(), &self.request_hash)
    }
}

/// What a command was sent to: `/v1/invoices`, or one of its streams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// A new one; its id is in the body or made here.
    New,
    /// The one of this id.
    Stream(&'a str),
}

impl Asked {
    /// Reads a command.
    ///
    /// # Errors
    /// 422 `invalid-body` where the body is not that of the command, 428 where the command needs
    /// a version and none was said.
    pub(crate) fn read(
        registered: &Registered,
        info: &CommandInfo,
        target: Target<'_>,
        context: &RequestContext,
        headers: CommandHeaders,
        mut body: Value,
    ) -> Result<Self, Problem> {
        let (route, path) = target.route(registered.name(), &info.name);
        let scope = identity::scope(&context.actor, &route);
        let key = headers.key.map(|key| {
            let request_hash = identity::request_hash(&path, &body);
            Key { scope, key, request_hash }
        });
        let fresh_id = key.as_ref().map_or_else(Uuid::now_v7, Key::id);
        let given = take_id(registered, &mut body)?;
        let id = match (target, given) {
            (Target::New, Some(given)) => given,
            (Target::New, None) => registered.commands.new_id(fresh_id),
            (Target::Stream(id), Some(given)) if given != id => {
                let detail = format!("it must be the id in the path, {id:?}, or be left out");
                return Err(wrong_id(registered, "other-id", detail));
            }
            (Target::Stream(id), _) => id.to_owned(),
        };
        let parsed = registered.commands.parse(&info.name, &body);
        let command = parsed.ok_or_else(|| unknown_command(registered))??;
        if info.needs_version && !says_version(headers.precondition) {
            return Err(Problem::new(ProblemKind::PreconditionRequired)
                .detail("send If-Match with the version that the command was decided on"));
        }
        Ok(Self {
            id,
            command,
            creates: info.creates,
            command_id: key.as_ref().map_or(fresh_id, Key::command_id),
            key,
            precondition: headers.precondition,
            token: headers.token,
            correlation_id: headers
                .correlation_id
                .unwrap_or_else(|| context.correlation_id.clone()),
        })
    }
}

impl Target<'_> {
    /// The route, which is the same for all ids, and the path.
    fn route(self, aggregate: &str, command: &str) -> (String, String) {
        match self {
            Target::New => {
                let path = format!("/v1/{aggregate}");
                (path.clone(), path)
            }
            Target::Stream(id) => (
                format!("/v1/{aggregate}/{{id}}/commands/{command}"),
                format!("/v1/{aggregate}/{id}/commands/{command}"),
            ),
        }
    }
}

fn says_version(precondition: Precondition) -> bool {
    match precondition {
        Precondition::Version(_) | Precondition::Absent => true,
        Precondition::None | Precondition::Present => false,
    }
}

/// Takes the id out of a body, so that the rest is the command; a body that is no object is left
/// for the command's own type to refuse.
fn take_id(registered: &Registered, body: &mut Value) -> Result<Option<String>, Problem> {
    let field = registered.commands.id_field();
    let Some(member) = body.as_object_mut().and_then(|members| members.remove(field)) else {
        return Ok(None);
    };
    let Value::String(id) = member else {
        return Err(wrong_id(registered, "wrong-type", "expected a text".into()));
    };
    match registered.commands.check_id(&id) {
        Ok(()) => Ok(Some(id)),
        Err(invalid) => Err(wrong_id(registered, invalid.code, invalid.detail)),
    }
}

fn wrong_id(registered: &Registered, code: &'static str, detail: String) -> Problem {
    let pointer = format!("/{}", registered.commands.id_field());
    Problem::invalid_body(vec![FieldError::new(pointer, code, detail)])
}

/// Whether the `{id}` of a path is one that a command can be sent to.
///
/// # Errors
/// 400 `invalid-path` where it is outside the grammar of ids, 422 where it breaks a rule of this
/// kind of id, so that there can never be such a stream.
pub(crate) fn check_path_id(registered: &Registered, id: &str) -> Result<(), Problem> {
    check_path_grammar(id)?;
    registered.commands.check_id(id).map_err(|invalid| {
        Problem::new(ProblemKind::InvalidBody)
            .detail(invalid.detail.clone())
            .error(FieldError::new("id", invalid.code, invalid.detail))
    })
}

/// Whether the `{id}` of a path is within the grammar of ids.
///
/// # Errors
/// 400 `invalid-path`.
pub(crate) fn check_path_grammar(id: &str) -> Result<(), Problem> {
    check_stream_id(id).map_err(|invalid| {
        Problem::new(ProblemKind::InvalidPath)
            .detail(invalid.detail.clone())
            .error(FieldError::new("id", invalid.code, invalid.detail))
    })
}

/// 404 that names the commands there are.
pub(crate) fn unknown_command(registered: &Registered) -> Problem {
    let known: Vec<_> = registered.infos.iter().map(|info| info.name.as_str()).collect();
    Problem::new(ProblemKind::NotFound)
        .detail(format!("{} know these commands: {}", registered.name(), known.join(", ")))
        .member("commands", known)
}
