//! One operation of the API, with its parameters and answers.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::problem_content;
use crate::problem::ProblemKind;

/// One operation: a method on a path.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(super) path: String,
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) body: Map<String, Value>,
}

impl Operation {
    /// An operation. `path` is written as in axum, `/v1/invoices/{id}`; `id` names it for
    /// generated clients. Every operation may answer 408, 500 and 503, so those are there.
    ///
    /// # Panics
    /// For a method that OpenAPI has no place for (CONNECT, extensions): a fault of the program.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>, id: impl Into<String>) -> Self {
        let method = match method.as_str() {
            "GET" => "get",
            "PUT" => "put",
            "POST" => "post",
            "DELETE" => "delete",
            "OPTIONS" => "options",
            "HEAD" => "head",
            "PATCH" => "patch",
            "TRACE" => "trace",
            other => panic!("OpenAPI has no place for {other}"),
        };
        // A wildcard segment of axum, `{*key}`, is an ordinary parameter in OpenAPI.
        let path = path.into().replace("{*", "{");
        let id = id.into();
        let mut body = Map::new();
        body.insert("operationId".into(), id.clone().into());
        body.insert("responses".into(), json!({}));
        Self { path, method, id, body }
            .problem(ProblemKind::Internal)
            .problem(ProblemKind::Unavailable)
            .problem(ProblemKind::Overloaded)
    }

    /// One line for lists.
    #[must_use]
    pub fn summary(mut self, summary: impl Into<String>) -> Self {
        self.body.insert("summary".into(), summary.into().into());
        self
    }

    /// More about it, as CommonMark.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.body.insert("description".into(), description.into().into());
        self
    }

    /// Groups it under a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        push(&mut self.body, "tags", tag.into().into());
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        push(&mut self.body, "parameters", Value::Object(parameter.0));
        self
    }

    /// Requires a JSON body of this schema, and says how one can be refused (400, 408, 413, 415,
    /// 422).
    #[must_use]
    pub fn body(mut self, schema: Value) -> Self {
        let content = json!({"application/json": {"schema": schema}});
        self.body.insert("requestBody".into(), json!({"required": true, "content": content}));
        [
            ProblemKind::MalformedJson,
            ProblemKind::RequestTimeout,
            ProblemKind::BodyTooLarge,
            ProblemKind::UnsupportedMediaType,
            ProblemKind::InvalidBody,
        ]
        .into_iter()
        .fold(self, Self::problem)
    }

    /// An example of the body.
    #[must_use]
    pub fn example(mut self, example: Value) -> Self {
        let json = self.body.get_mut("requestBody");
        if let Some(json) = json.and_then(|body| body.pointer_mut("/content/application~1json")) {
            json["example"] = example;
        }
        self
    }

    /// Adds an answer.
    #[must_use]
    pub fn response(mut self, response: ResponseDoc) -> Self {
        let key = response.status.as_str().to_owned();
        self.responses().insert(key, Value::Object(response.body));
        self
    }

    /// Adds a refusal of the catalogue.
    #[must_use]
    pub fn problem(self, kind: ProblemKind) -> Self {
        let headers = kind.retry_after().map(|_| {
            json!({"Retry-After": {
                "description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1},
            }})
        });
        self.refusal(kind.status(), kind.code(), kind.doc(), headers)
    }

    /// Adds a refusal of the domain's own.
    #[must_use]
    pub fn domain_problem(self, status: StatusCode, code: &str, doc: &str) -> Self {
        self.refusal(status, code, doc, None)
    }

    fn refusal(
        mut self,
        status: StatusCode,
        code: &str,
        doc: &str,
        headers: Option<Value>,
    ) -> Self {
        let line = format!("`{code}`: {doc}");
        let known = self
            .responses()
            .entry(status.as_str())
            .or_insert_with(|| json!({"description": "", "content": problem_content()}));
        let before = known["description"].as_str().unwrap_or_default();
        known["description"] = match before {
            "" => line.into(),
            before if before.contains(&line) => before.into(),
            before => format!("{before}\n\n{line}").into(),
        };
        if let Some(headers) = headers {
            known["headers"] = headers;
        }
        self
    }

    fn responses(&mut self) -> &mut Map<String, Value> {
        let responses = self.body.entry("responses").or_insert_with(|| json!({}));
        responses.as_object_mut().expect("`responses` is made as an object, here and in `new`")
    }
}

fn push(body: &mut Map<String, Value>, name: &str, value: Value) {
    let list = body.entry(name).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

/// A parameter in the path, the query or a header.
#[derive(Debug, Clone)]
pub struct Parameter(Map<String, Value>);

impl Parameter {
    /// A part of the path; always required.
    #[must_use]
    pub fn path(name: &str, schema: Value, description: &str) -> Self {
        Self::new("path", name, schema, description).required()
    }

    /// A query parameter.
    #[must_use]
    pub fn query(name: &str, schema: Value, description: &str) -> Self {
        Self::new("query", name, schema, description)
    }

    /// A request header.
    #[must_use]
    pub fn header(name: &str, schema: Value, description: &str) -> Self {
        Self::new("header", name, schema, description)
    }

    fn new(place: &str, name: &str, schema: Value, description: &str) -> Self {
        let mut parameter = Map::new();
        parameter.insert("in".into(), place.into());
        parameter.insert("name".into(), name.into());
        parameter.insert("description".into(), description.into());
        parameter.insert("schema".into(), schema);
        Self(parameter)
    }

    /// Must be given.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.0.insert("required".into(), true.into());
        self
    }

    /// An example value.
    #[must_use]
    pub fn example(mut self, example: impl Into<Value>) -> Self {
        self.0.insert("example".into(), example.into());
        self
    }
}

/// An answer of an operation.
#[derive(Debug, Clone)]
pub struct ResponseDoc {
    status: StatusCode,
    body: Map<String, Value>,
}

impl ResponseDoc {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: StatusCode, description: &str) -> Self {
        let mut body = Map::new();
        body.insert("description".into(), description.into());
        Self { status, body }
    }

    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: StatusCode, description: &str, schema: Value) -> Self {
        Self::empty(status, description).content("application/json", schema)
    }

    /// Also answers this media type.
    #[must_use]
    pub fn content(mut self, media_type: &str, schema: Value) -> Self {
        let content = self.body.entry("content").or_insert_with(|| json!({}));
        content[media_type] = json!({"schema": schema});
        self
    }

    /// A header that the answer carries, a text.
    #[must_use]
    pub fn header(mut self, name: &str, description: &str) -> Self {
        let headers = self.body.entry("headers").or_insert_with(|| json!({}));
        headers[name] = json!({"description": description, "schema": {"type": "string"}});
        self
    }
}
