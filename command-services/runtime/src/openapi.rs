//! The part of the OpenAPI document that commands, histories and states are.

use foldstream_core::CommandSchema;
use foldstream_service::ProblemKind as P;
use foldstream_service::openapi::{Conflict, Document, Operation, Parameter, ResponseDoc};
use http::{Method, StatusCode};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::headers::MAX_KEY;
use crate::reads::MAX_ENTRIES;
use crate::service::{Registered, Service};

/// The routes of all aggregates of these services, to be merged with the other parts.
///
/// # Errors
/// When two aggregates have the same name, or two different types in their commands have.
pub fn openapi<'a>(services: impl IntoIterator<Item = &'a Service>) -> Result<Document, Conflict> {
    let mut part = Document::new("Commands", "1", "");
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = SchemaGenerator::new(settings);
    let aggregates = services.into_iter().flat_map(Service::registered);
    let described: Vec<_> = aggregates
        .map(|registered| (registered, registered.commands.schemas(&mut generator)))
        .collect();
    let definitions = generator.take_definitions(true);
    for (name, schema) in &definitions {
        part.component(name, schema.clone())?;
    }
    let entry = part.component("HistoryEntry", history_entry())?;
    for (registered, commands) in described {
        part.tag(registered.name(), format!("Commands and history of {}.", registered.name()));
        let schemas = Schemas::of(&mut part, registered, &entry)?;
        for command in commands {
            add_command(&mut part, registered, &command, &schemas, &definitions)?;
        }
        part.operation(history(registered, &schemas))?;
        part.operation(state(registered, &schemas))?;
    }
    Ok(part)
}

/// References to the answers of one aggregate.
struct Schemas {
    accepted: Value,
    history: Value,
    state: Value,
}

impl Schemas {
    fn of(part: &mut Document, registered: &Registered, entry: &Value) -> Result<Self, Conflict> {
        let name = pascal(registered.name());
        let id_field = registered.commands.id_field();
        let mut accepted = json!({
            "type": "object",
            "required": ["stream", id_field, "version", "events"],
            "properties": {
                "stream": {"type": "string", "examples": [format!("{}/1", registered.name())]},
                "version": {
                    "type": "integer", "minimum": 0,
                    "description": "The stream's version after the command.",
                },
                "events": {
                    "type": "array",
                    "description": "What the command led to; none where all was so already.",
                    "items": {
                        "type": "object",
                        "required": ["id", "type", "version"],
                        "properties": {
                            "id": {"type": "string", "format": "uuid"},
                            "type": {"type": "string", "enum": event_names(registered)},
                            "version": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        });
        accepted["properties"][id_field] = id_schema();
        let history = json!({
            "type": "object",
            "required": ["data", "page"],
            "properties": {
                "data": {"type": "array", "items": entry},
                "page": {
                    "type": "object",
                    "required": ["next", "prev", "has_more"],
                    "properties": {
                        "next": {"type": ["string", "null"], "description": "The next `from`."},
                        "prev": {"type": ["string", "null"], "description": "The one before."},
                        "has_more": {"type": "boolean"},
                    },
                },
            },
        });
        let state = json!({
            "type": "object",
            "required": ["stream", "version", "state"],
            "properties": {
                "stream": {"type": "string"},
                "version": {"type": "integer", "minimum": 1},
                "state": {"description": "As the aggregate shows itself."},
            },
        });
        Ok(Self {
            accepted: part.component(&format!("{name}Accepted"), accepted)?,
            history: part.component(&format!("{name}History"), history)?,
            state: part.component(&format!("{name}State"), state)?,
        })
    }
}

fn add_command(
    part: &mut Document,
    registered: &Registered,
    command: &CommandSchema,
    schemas: &Schemas,
    definitions: &Map<String, Value>,
) -> Result<(), Conflict> {
    let aggregate = registered.name();
    let schema = resolved(command.schema.as_value(), definitions);
    let summary = summary_of(command.schema.as_value(), definitions, &command.name);
    let with_id = with_id(schema, registered.commands.id_field());
    let body = part.component(&format!("{}Body", pascal(&command.name)), with_id)?;
    let done = ResponseDoc::json(StatusCode::OK, "Done, or so already.", schemas.accepted.clone());
    if command.creates {
        let made = ResponseDoc::json(StatusCode::CREATED, "Created.", schemas.accepted.clone());
        let operation = Operation::new(
            Method::POST,
            format!("/v1/{aggregate}"),
            operation_id(aggregate, "create"),
        )
        .response(with_answer_headers(made).header("Location", "Where it is."))
        .response(with_answer_headers(done.clone()));
        part.operation(described(operation, registered, command, &summary, &body))?;
    }
    let path = format!("/v1/{aggregate}/{{id}}/commands/{}", command.name);
    let operation = Operation::new(Method::POST, path, operation_id(aggregate, &command.name))
        .parameter(id_parameter())
        .problem(P::InvalidPath)
        .response(with_answer_headers(done));
    part.operation(described(operation, registered, command, &summary, &body))
}

fn described(
    operation: Operation,
    registered: &Registered,
    command: &CommandSchema,
    summary: &str,
    body: &Value,
) -> Operation {
    let (conflict, invalid) = (StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY);
    let mut operation = operation
        .summary(summary)
        .tag(registered.name())
        .body(body.clone())
        .domain_problem(conflict, "<the rule's own code>", "The present state refuses it.")
        .domain_problem(invalid, "<the rule's own code>", "A rule refuses it in every state.");
    for parameter in header_parameters(command.needs_version) {
        operation = operation.parameter(parameter);
    }
    let refusals = [
        P::InvalidHeader,
        P::TokenInvalid,
        P::IdempotencyKeyInProgress,
        P::Contended,
        P::IdempotencyKeyReused,
        P::VersionMismatch,
        P::Exists,
        P::OutboxFull,
        P::OutcomeUnknown,
    ];
    let operation = refusals.into_iter().fold(operation, Operation::problem);
    if command.needs_version { operation.problem(P::PreconditionRequired) } else { operation }
}

fn header_parameters(needs_version: bool) -> [Parameter; 5] {
    let if_match = Parameter::header(
        "If-Match",
        json!({"type": "string", "pattern": r#"^(\*|"[1-9][0-9]{0,18}")$"#}),
        "The version it was decided on, in quotes as in `ETag`; `*`: whatever it is, if it exists.",
    );
    [
        Parameter::header(
            "Idempotency-Key",
            json!({"type": "string", "minLength": 1, "maxLength": MAX_KEY + 2}),
            "The same request under the same key has one effect and one answer. Quoted or bare.",
        ),
        if needs_version { if_match.required() } else { if_match },
        Parameter::header(
            "If-None-Match",
            json!({"type": "string", "enum": ["*"]}),
            "Only if it does not exist yet. Not together with `If-Match`.",
        ),
        Parameter::header(
            "Consistency-Token",
            json!({"type": "string", "maxLength": 2048}),
            "What was seen before; the answered token holds it too.",
        ),
        Parameter::header(
            "X-Correlation-Id",
            json!({"type": "string", "maxLength": 128}),
            "Stored with the events; the trace id where there is none.",
        ),
    ]
}

fn with_answer_headers(response: ResponseDoc) -> ResponseDoc {
    response
        .header("ETag", "The version, in quotes.")
        .header("Consistency-Token", "For queries that must have seen this command.")
        .header("Idempotency-Replayed", "`true` on an answer that was given before.")
}

fn history(registered: &Registered, schemas: &Schemas) -> Operation {
    let name = registered.name();
    let path = format!("/v1/{name}/{{id}}/history");
    Operation::new(Method::GET, path, operation_id(name, "history"))
        .summary("What happened to one of them")
        .tag(name)
        .parameter(id_parameter())
        .parameter(Parameter::query(
            "from",
            json!({"type": "integer", "minimum": 1, "default": 1}),
            "The first version.",
        ))
        .parameter(Parameter::query(
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": MAX_ENTRIES, "default": 100}),
            "How many at most; large events make a page shorter.",
        ))
        .response(ResponseDoc::json(StatusCode::OK, "Events.", schemas.history.clone()))
        .problem(P::InvalidPath)
        .problem(P::InvalidQuery)
        .problem(P::NotFound)
}

fn state(registered: &Registered, schemas: &Schemas) -> Operation {
    let name = registered.name();
    let path = format!("/v1/{name}/{{id}}/state");
    Operation::new(Method::GET, path, operation_id(name, "state"))
        .summary("The state of one of them, now or before")
        .tag(name)
        .parameter(id_parameter())
        .parameter(Parameter::query(
            "version",
            json!({"type": "integer", "minimum": 1}),
            "After this many events. Not together with `as_of`.",
        ))
        .parameter(Parameter::query(
            "as_of",
            json!({"type": "string", "format": "date-time"}),
            "After the events recorded up to this instant (UTC).",
        ))
        .response(
            ResponseDoc::json(StatusCode::OK, "The state.", schemas.state.clone())
                .header("ETag", "The version, in quotes."),
        )
        .problem(P::InvalidPath)
        .problem(P::InvalidQuery)
        .problem(P::NotFound)
}

fn id_schema() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"})
}

fn id_parameter() -> Parameter {
    Parameter::path("id", id_schema(), "Its id.")
}

fn event_names(registered: &Registered) -> Vec<&'static str> {
    registered.aggregate.events().iter().map(|event| event.name).collect()
}

fn history_entry() -> Value {
    json!({
        "type": "object",
        "required": ["version", "type", "time", "actor", "causation", "correlation", "data", "id",
            "position"],
        "properties": {
            "version": {"type": "integer", "minimum": 1},
            "type": {"type": "string"},
            "time": {"type": "string", "format": "date-time"},
            "actor": {"type": ["string", "null"], "description": "Who gave the command."},
            "causation": {
                "type": ["string", "null"],
                "description": "Id of the command that led to the event.",
            },
            "correlation": {"type": ["string", "null"], "description": "What it belongs to."},
            "trace_id": {"type": "string", "description": "The trace it was given in."},
            "traceparent": {"type": "string", "description": "The same with its span, W3C."},
            "data": {"description": "What happened."},
            "id": {"type": "string", "format": "uuid"},
            "position": {"type": "integer", "minimum": 1},
        },
    })
}

/// The object schema behind a chain of references.
fn resolved(schema: &Value, definitions: &Map<String, Value>) -> Value {
    let mut schema = schema;
    for _ in 0..8 {
        match referred(schema, definitions) {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema.clone()
}

fn referred<'a>(schema: &Value, definitions: &'a Map<String, Value>) -> Option<&'a Value> {
    let name = schema.get("$ref")?.as_str()?.rsplit('/').next()?;
    definitions.get(name)
}

/// The first line of a command's doc comment.
fn summary_of(schema: &Value, definitions: &Map<String, Value>, name: &str) -> String {
    let described = referred(schema, definitions).unwrap_or(schema)["description"].as_str();
    let line = described.and_then(|text| text.lines().next());
    line.map_or_else(|| name.to_owned(), str::to_owned)
}

/// A body may bear the aggregate's id beside the command's own members.
fn with_id(mut schema: Value, id_field: &str) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.entry("type").or_insert_with(|| "object".into());
        // Bodies are decoded strictly, whatever their types say.
        members.insert("additionalProperties".into(), false.into());
        let properties = members.entry("properties").or_insert_with(|| json!({}));
        properties[id_field] = id_schema();
        properties[id_field]["description"] =
            "The id; made by the server where none is given, equal to the path's where both are."
                .into();
    }
    schema
}

fn operation_id(aggregate: &str, what: &str) -> String {
    format!("{aggregate}_{what}").replace('-', "_")
}

/// `credit-notes` → `CreditNotes`.
fn pascal(name: &str) -> String {
    let mut out = String::new();
    for word in name.split('-') {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}
