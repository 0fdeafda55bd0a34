//! The routes of the Confluent schema registry API, as far as this registry has them.

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};

use crate::Registry;
use crate::answer;
use crate::compatibility::Level;
use crate::levels::{self, GLOBAL};
use crate::lists::{self, Listed};
use crate::modes::{self, Mode};
use crate::refusal::Refusal;
use crate::request::{Body, LevelBody, ModeBody, SchemaBody, Target};
use crate::store::{self, Version, Wanted};

const MAX_BODY_BYTES: usize = 1024 * 1024;

type Answer = Result<Response, Refusal>;

pub(crate) fn router(registry: Registry) -> Router {
    let version = "/subjects/{subject}/versions/{version}";
    Router::new()
        .route("/", get(async || answer::ok(&json!({}))))
        .route(
            "/contexts",
            get(async |target: Target| answer::ok(&json!(target.part_of(vec!["."])))),
        )
        .route("/schemas", get(schemas))
        .route("/schemas/types", get(async || answer::ok(&json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/subjects", get(schema_subjects))
        .route("/schemas/ids/{id}/versions", get(schema_versions))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(version_numbers).post(register))
        .route(version, get(version_by_number).delete(delete_version))
        .route(&format!("{version}/schema"), get(version_text))
        .route(&format!("{version}/referencedby"), get(version_references))
        .route(&format!("/compatibility{version}"), post(check_one))
        .route("/compatibility/subjects/{subject}/versions", post(check_all))
        .route("/config", get(global_level).put(set_level).delete(forget_level))
        .route("/config/{subject}", get(level).put(set_level).delete(forget_level))
        .route("/mode", get(global_mode).put(set_mode).delete(forget_mode))
        .route("/mode/{subject}", get(mode).put(set_mode).delete(forget_mode))
        .fallback(async || Refusal::no_route())
        .method_not_allowed_fallback(async || {
            Refusal::plain(StatusCode::METHOD_NOT_ALLOWED, "HTTP 405 Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(registry)
}

async fn schema(State(registry): State<Registry>, target: Target) -> Answer {
    let (id, with_last) = (target.id()?, target.says("fetchMaxId"));
    let (text, last) = registry
        .run(async |c| {
            let text = store::schema_text(&mut *c, id).await?;
            Ok((text, if with_last { Some(lists::last_id(c).await?) } else { None }))
        })
        .await?;
    let mut body = json!({ "schema": text });
    if let Some(last) = last {
        body["maxId"] = last.into();
    }
    Ok(answer::ok(&body))
}

async fn schemas(State(registry): State<Registry>, target: Target) -> Answer {
    let (prefix, scope) = (target.subject_prefix()?, target.scope());
    let latest_only = target.says("latestOnly");
    let (offset, limit) = (target.number("offset").unwrap_or(0), target.number("limit"));
    let list = registry
        .run(async |c| lists::schemas(c, prefix, scope, latest_only, offset, limit).await)
        .await?;
    let described = |Listed { subject, version, id, text, deleted }| {
        described(&subject, &Version { version, id, text, deleted })
    };
    Ok(answer::ok(&list.into_iter().map(described).collect()))
}

async fn schema_text(State(registry): State<Registry>, target: Target) -> Answer {
    let id = target.id()?;
    let text = registry.run(async |c| store::schema_text(c, id).await).await?;
    Ok(answer::text(StatusCode::OK, text))
}

async fn schema_subjects(State(registry): State<Registry>, target: Target) -> Answer {
    let mut subjects: Vec<String> =
        uses(&registry, &target).await?.into_iter().map(|(subject, _)| subject).collect();
    subjects.dedup();
    Ok(answer::ok(&json!(target.part_of(subjects))))
}

async fn schema_versions(State(registry): State<Registry>, target: Target) -> Answer {
    let uses = uses(&registry, &target).await?;
    let uses: Vec<Value> = uses
        .into_iter()
        .map(|(subject, version)| json!({ "subject": subject, "version": version }))
        .collect();
    Ok(answer::ok(&json!(target.part_of(uses))))
}

async fn uses(registry: &Registry, target: &Target) -> Result<Vec<(String, i32)>, Refusal> {
    let (id, scope) = (target.id()?, target.scope());
    registry
        .run(async |c| {
            store::schema_text(&mut *c, id).await?;
            store::uses_of_schema(c, id, scope).await
        })
        .await
}

async fn subjects(State(registry): State<Registry>, target: Target) -> Answer {
    let (prefix, scope) = (target.subject_prefix()?, target.scope());
    let subjects = registry.run(async |c| store::subjects(c, prefix, scope).await).await?;
    Ok(answer::ok(&json!(target.part_of(subjects))))
}

async fn look_up(
    State(registry): State<Registry>,
    target: Target,
    Body(body): Body<SchemaBody>,
) -> Answer {
    let (subject, scope) = (target.subject()?, target.scope());
    let schema = body.schema().await?;
    let found = registry
        .run(async |c| {
            let found = store::version_of_schema(&mut *c, subject, &schema, scope).await?;
            match found {
                Some(found) => Ok(found),
                None if store::version_numbers(c, subject, scope).await?.is_empty() => {
                    Err(Refusal::subject_not_found(subject))
                }
                None => Err(Refusal::schema_not_found()),
            }
        })
        .await?;
    Ok(describe(subject, &found))
}

async fn register(
    State(registry): State<Registry>,
    target: Target,
    Body(body): Body<SchemaBody>,
) -> Answer {
    let subject = target.subject()?;
    if body.chooses_numbers() {
        return Err(Refusal::import_not_supported());
    }
    let schema = body.schema().await?;
    let id = registry.run(async |c| store::register(c, subject, &schema).await).await?;
    Ok(answer::ok(&json!({ "id": id })))
}

async fn version_numbers(State(registry): State<Registry>, target: Target) -> Answer {
    let (subject, scope) = (target.subject()?, target.scope());
    let numbers = registry.run(async |c| store::version_numbers(c, subject, scope).await).await?;
    if numbers.is_empty() {
        return Err(Refusal::subject_not_found(subject));
    }
    Ok(answer::ok(&json!(target.part_of(numbers))))
}

async fn version_by_number(State(registry): State<Registry>, target: Target) -> Answer {
    let found = find_version(&registry, &target).await?;
    Ok(describe(target.subject()?, &found))
}

async fn version_text(State(registry): State<Registry>, target: Target) -> Answer {
    Ok(answer::text(StatusCode::OK, find_version(&registry, &target).await?.text))
}

/// No schema refers to another subject here.
async fn version_references(State(registry): State<Registry>, target: Target) -> Answer {
    find_version(&registry, &target).await?;
    Ok(answer::ok(&json!([])))
}

async fn find_version(registry: &Registry, target: &Target) -> Result<Version, Refusal> {
    let (subject, wanted, scope) = (target.subject()?, target.version()?, target.scope());
    registry
        .run(async |c| match store::version(&mut *c, subject, wanted, scope).await? {
            Some(found) => Ok(found),
            None => Err(store::no_version(c, subject, wanted, scope).await?),
        })
        .await
}

fn describe(subject: &str, found: &Version) -> Response {
    answer::ok(&described(subject, found))
}

fn described(subject: &str, found: &Version) -> Value {
    let mut body = json!({
        "subject": subject,
        "version": found.version,
        "id": found.id,
        "schema": found.text,
    });
    if found.deleted {
        body["deleted"] = Value::Bool(true);
    }
    body
}

async fn delete_subject(State(registry): State<Registry>, target: Target) -> Answer {
    let (subject, permanent) = (target.subject()?, target.says("permanent"));
    let numbers =
        registry.run(async |c| store::delete_subject(c, subject, permanent).await).await?;
    Ok(answer::ok(&json!(numbers)))
}

async fn delete_version(State(registry): State<Registry>, target: Target) -> Answer {
    let (subject, wanted) = (target.subject()?, target.version()?);
    let permanent = target.says("permanent");
    let number =
        registry.run(async |c| store::delete_version(c, subject, wanted, permanent).await).await?;
    Ok(answer::ok(&json!(number)))
}

async fn check_one(
    State(registry): State<Registry>,
    target: Target,
    Body(body): Body<SchemaBody>,
) -> Answer {
    let wanted = target.version()?;
    check(&registry, &target, body, Some(wanted)).await
}

async fn check_all(
    State(registry): State<Registry>,
    target: Target,
    Body(body): Body<SchemaBody>,
) -> Answer {
    check(&registry, &target, body, None).await
}

async fn check(
    registry: &Registry,
    target: &Target,
    body: SchemaBody,
    wanted: Option<Wanted>,
) -> Answer {
    let subject = target.subject()?;
    let schema = body.schema().await?;
    let against = registry.run(async |c| store::check(c, subject, &schema, wanted).await).await?;
    let mut verdict = json!({ "is_compatible": against.is_empty() });
    if target.says("verbose") {
        verdict["messages"] = json!(against);
    }
    Ok(answer::ok(&verdict))
}

async fn global_level(State(registry): State<Registry>) -> Answer {
    let level = registry.run(async |c| levels::effective_level(c, GLOBAL).await).await?;
    Ok(answer::ok(&json!({ "compatibilityLevel": level.name() })))
}

async fn level(State(registry): State<Registry>, target: Target) -> Answer {
    let (subject, or_global) = (target.subject()?, target.says("defaultToGlobal"));
    let level = registry
        .run(async |c| {
            if or_global {
                levels::effective_level(c, subject).await.map(Some)
            } else {
                levels::level(c, subject).await
            }
        })
        .await?
        .ok_or_else(|| Refusal::level_not_configured(subject))?;
    Ok(answer::ok(&json!({ "compatibilityLevel": level.name() })))
}

async fn global_mode(State(registry): State<Registry>) -> Answer {
    let mode = registry.run(async |c| modes::effective_mode(c, GLOBAL).await).await?;
    Ok(answer::ok(&json!({ "mode": mode.name() })))
}

async fn mode(State(registry): State<Registry>, target: Target) -> Answer {
    let (subject, or_global) = (target.subject()?, target.says("defaultToGlobal"));
    let mode = registry
        .run(async |c| {
            if or_global {
                modes::effective_mode(c, subject).await.map(Some)
            } else {
                modes::mode(c, subject).await
            }
        })
        .await?
        .ok_or_else(|| Refusal::mode_not_configured(subject))?;
    Ok(answer::ok(&json!({ "mode": mode.name() })))
}

async fn set_mode(
    State(registry): State<Registry>,
    target: Target,
    Body(body): Body<ModeBody>,
) -> Answer {
    let subject = target.subject_or_global()?;
    let mode = Mode::from_name(body.mode.as_deref().unwrap_or_default())?;
    registry.run(async |c| modes::set_mode(c, subject, mode).await).await?;
    Ok(answer::ok(&json!({ "mode": mode.name() })))
}

async fn forget_mode(State(registry): State<Registry>, target: Target) -> Answer {
    let subject = target.subject_or_global()?;
    let mode = match registry.run(async |c| modes::forget_mode(c, subject).await).await? {
        Some(mode) => mode,
        None if subject == GLOBAL => Mode::DEFAULT,
        None => return Err(Refusal::subject_not_found(subject)),
    };
    Ok(answer::ok(&json!({ "mode": mode.name() })))
}

async fn set_level(
    State(registry): State<Registry>,
    target: Target,
    Body(body): Body<LevelBody>,
) -> Answer {
    let subject = target.subject_or_global()?;
    let name = body.compatibility.as_deref().unwrap_or_default();
    let level = Level::from_name(name).ok_or_else(Refusal::invalid_level)?;
    registry
        .run(async |c| {
            modes::require_writable(&mut *c, subject).await?;
            levels::set_level(c, subject, level).await
        })
        .await?;
    Ok(answer::ok(&json!({ "compatibility": level.name() })))
}

async fn forget_level(State(registry): State<Registry>, target: Target) -> Answer {
    let subject = target.subject_or_global()?;
    let forgotten = registry
        .run(async |c| {
            modes::require_writable(&mut *c, subject).await?;
            levels::forget_level(c, subject).await
        })
        .await?;
    let level = match forgotten {
        Some(level) => level,
        None if subject == GLOBAL => Level::DEFAULT,
        None => return Err(Refusal::subject_not_found(subject)),
    };
    Ok(answer::ok(&json!({ "compatibilityLevel": level.name() })))
}
