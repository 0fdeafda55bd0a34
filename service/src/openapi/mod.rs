//! The OpenAPI 3.1 document of a process: built from the registration, merged from its parts,
//! served as `/openapi.json` and, for people, as `/docs`.

mod operation;
mod page;

pub use operation::{Operation, Parameter, ResponseDoc};
pub use page::docs_router;

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, SchemaGenerator as Generator};
use serde_json::{Map, Value, json};

use crate::problem::{MEDIA_TYPE, ProblemKind};

/// A document, or the part of one that a crate contributes.
#[derive(Debug)]
pub struct Document {
    title: String,
    version: String,
    description: String,
    tags: BTreeMap<String, String>,
    paths: BTreeMap<String, BTreeMap<&'static str, Value>>,
    components: Map<String, Value>,
    operation_ids: BTreeMap<String, String>,
    generator: Generator,
}

/// Two parts of a document disagree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Two operations have the same path and method.
    #[error("two operations answer {method} {path}")]
    Operation {
        /// The path.
        path: String,
        /// The method.
        method: &'static str,
    },
    /// Two operations have the same id.
    #[error("two operations have the id {0}")]
    OperationId(String),
    /// Two different schemas have the same name.
    #[error("two different schemas are named {0}")]
    Schema(String),
}

impl Document {
    /// An empty document. `version` is that of the API, `description` is CommonMark.
    #[must_use]
    pub fn new(
        title: impl Into<String>,
        version: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        let mut document = Self {
            title: title.into(),
            version: version.into(),
            description: description.into(),
            tags: BTreeMap::new(),
            paths: BTreeMap::new(),
            components: Map::new(),
            operation_ids: BTreeMap::new(),
            generator: SchemaGenerator::new(settings),
        };
        document.components.insert("Problem".to_owned(), problem_schema());
        document
    }

    /// The schema of `T`: a reference into the components for named types.
    pub fn schema<T: JsonSchema>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    /// Adds a schema by hand and answers the reference to it.
    ///
    /// # Errors
    /// When another schema has this name.
    pub fn component(&mut self, name: &str, schema: Value) -> Result<Value, Conflict> {
        if self.components.get(name).is_some_and(|known| *known != schema) {
            return Err(Conflict::Schema(name.to_owned()));
        }
        self.components.insert(name.to_owned(), schema);
        Ok(json!({"$ref": format!("#/components/schemas/{name}")}))
    }

    /// Describes a tag, such as an aggregate or a read model.
    pub fn tag(&mut self, name: impl Into<String>, description: impl Into<String>) {
        self.tags.insert(name.into(), description.into());
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// When its path and method, or its id, are taken.
    pub fn operation(&mut self, operation: Operation) -> Result<(), Conflict> {
        let (path, method, id) = (operation.path, operation.method, operation.id);
        self.claim(&path, method, &id)?;
        self.paths.entry(path).or_default().insert(method, Value::Object(operation.body));
        Ok(())
    }

    fn claim(&mut self, path: &str, method: &'static str, id: &str) -> Result<(), Conflict> {
        if self.paths.get(path).is_some_and(|methods| methods.contains_key(method)) {
            return Err(Conflict::Operation { path: path.to_owned(), method });
        }
        match self.operation_ids.insert(id.to_owned(), path.to_owned()) {
            None => Ok(()),
            Some(_) => Err(Conflict::OperationId(id.to_owned())),
        }
    }

    /// Takes over the operations, tags and schemas of `part`.
    ///
    /// # Errors
    /// When both have the same operation, or different schemas under the same name.
    pub fn merge(&mut self, mut part: Self) -> Result<(), Conflict> {
        for (name, schema) in part.schemas() {
            let known = self.generator.definitions().get(&name);
            if known.is_some_and(|known| *known != schema) {
                return Err(Conflict::Schema(name));
            }
            self.component(&name, schema)?;
        }
        for (path, methods) in part.paths {
            for (method, body) in methods {
                let id = body["operationId"].as_str().unwrap_or_default();
                self.claim(&path, method, id)?;
                self.paths.entry(path.clone()).or_default().insert(method, body);
            }
        }
        self.tags.extend(part.tags);
        Ok(())
    }

    fn schemas(&mut self) -> Map<String, Value> {
        let mut schemas = self.components.clone();
        schemas.extend(self.generator.take_definitions(true));
        schemas
    }

    /// The document as JSON.
    #[must_use]
    pub fn into_json(mut self) -> Value {
        let schemas: BTreeMap<_, _> = self.schemas().into_iter().collect();
        let tags: Vec<_> = self
            .tags
            .iter()
            .map(|(name, description)| json!({"name": name, "description": description}))
            .collect();
        json!({
            "openapi": "3.1.0",
            "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
            "info": {
                "title": self.title, "version": self.version, "description": self.description,
            },
            "tags": tags,
            "paths": self.paths,
            "components": {"schemas": schemas},
        })
    }
}

/// The schema of [`crate::Problem`].
fn problem_schema() -> Value {
    let codes: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.code()).collect();
    json!({
        "type": "object",
        "description": "A refusal (RFC 9457). Other members may be present.",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "code": {
                "type": "string",
                "description": "Stable. Aggregates add their own to these.",
                "examples": codes,
            },
            "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "code", "detail"],
                    "properties": {
                        "pointer": {
                            "type": "string",
                            "description": "JSON pointer into the body, or the parameter's name.",
                        },
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                },
            },
        },
    })
}

/// The content of an answer that is a problem.
fn problem_content() -> Value {
    json!({MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, StatusCode};

    /// A thing.
    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "only its schema is used")]
    struct Thing {
        /// Its name.
        name: String,
    }

    fn part(path: &str, id: &str) -> Document {
        let mut part = Document::new("part", "1", "");
        let thing = part.schema::<Thing>();
        let operation = Operation::new(Method::POST, path, id)
            .summary("Makes a thing")
            .parameter(Parameter::path("id", json!({"type": "string"}), "its id"))
            .body(thing.clone())
            .response(
                ResponseDoc::json(StatusCode::CREATED, "made", thing).header("ETag", "version"),
            )
            .problem(ProblemKind::VersionMismatch)
            .problem(ProblemKind::Exists);
        part.operation(operation).expect("the part is empty");
        part
    }

    #[test]
    fn parts_are_merged_and_schemas_are_shared() {
        let mut whole = Document::new("Shop", "1", "All of it");
        whole.merge(part("/v1/a/{id}", "a")).expect("no conflict");
        whole.merge(part("/v1/b/{id}", "b")).expect("no conflict");
        let json = whole.into_json();
        assert_eq!(json["openapi"], "3.1.0");
        let post = &json["paths"]["/v1/a/{id}"]["post"];
        assert_eq!(
            post["requestBody"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/Thing"
        );
        let text = post["responses"]["412"]["description"].as_str().unwrap_or_default();
        assert!(text.contains("version-mismatch") && text.contains("exists"), "{text}");
        assert_eq!(json["components"]["schemas"]["Thing"]["type"], "object");
        assert!(json["components"]["schemas"]["Problem"].is_object());
        assert!(json["paths"]["/v1/b/{id}"]["post"].is_object());
    }

    #[test]
    fn what_is_there_twice_is_a_conflict() {
        let mut whole = Document::new("Shop", "1", "");
        whole.merge(part("/v1/a/{id}", "a")).expect("no conflict");
        let again = whole.merge(part("/v1/a/{id}", "other"));
        assert!(matches!(again, Err(Conflict::Operation { .. })));
        let again = whole.merge(part("/v1/c/{id}", "a"));
        assert_eq!(again, Err(Conflict::OperationId("a".to_owned())));
        let again = whole.component("Thing", json!({"type": "string"}));
        assert_eq!(again, Err(Conflict::Schema("Thing".to_owned())));
    }
}
