//! `docker-compose.kafka.yml`, the Dockerfile and `deny.toml`, checked without Docker: what a
//! person would have to find out by starting them.

use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

const ROLES: [(&str, &[&str]); 6] = [
    ("migrate", &["READ_DATABASE_URL", "INVOICING_DATABASE_URL", "REGISTRY_DATABASE_URL"]),
    ("registry", &["REGISTRY_DATABASE_URL"]),
    ("commands", &["INVOICING_DATABASE_URL", "KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_URL"]),
    ("relay", &["INVOICING_DATABASE_URL", "KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_URL"]),
    ("projections", &["READ_DATABASE_URL", "KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_URL"]),
    ("queries", &["READ_DATABASE_URL"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn compose() -> Yaml {
    let mut documents = YamlLoader::load_from_str(&read("docker-compose.kafka.yml"))
        .expect("the compose file is YAML");
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// A member of a mapping, also one that comes from a mapping merged in with `<<`.
fn member<'a>(mapping: &'a Yaml, name: &str) -> Option<&'a Yaml> {
    let members = mapping.as_hash()?;
    if let Some(found) = members.get(&Yaml::String(name.to_owned())) {
        return Some(found);
    }
    match members.get(&Yaml::String("<<".to_owned()))? {
        Yaml::Array(merged) => merged.iter().find_map(|inner| member(inner, name)),
        merged => member(merged, name),
    }
}

fn text<'a>(mapping: &'a Yaml, name: &str) -> &'a str {
    member(mapping, name).and_then(Yaml::as_str).unwrap_or_default()
}

fn list<'a>(mapping: &'a Yaml, name: &str) -> Vec<&'a str> {
    let items = member(mapping, name).and_then(Yaml::as_vec);
    items.map(|items| items.iter().filter_map(Yaml::as_str).collect()).unwrap_or_default()
}

fn services(compose: &Yaml) -> Vec<(&str, &Yaml)> {
    let services = compose["services"].as_hash().expect("services");
    services.iter().map(|(name, service)| (name.as_str().expect("a name"), service)).collect()
}

#[test]
fn every_image_is_pinned_and_every_service_has_a_health_check() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let image = text(service, "image");
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        let parts = tag.split(['.', '-']).take(2).filter(|part| part.parse::<u32>().is_ok());
        assert_eq!(parts.count(), 2, "{name}: {image} names no minor version");
        let check = member(service, "healthcheck").unwrap_or_else(|| panic!("{name}: no check"));
        let disabled = member(check, "disable").and_then(Yaml::as_bool) == Some(true);
        assert_eq!(disabled, name == "migrate", "{name}");
        assert!(disabled || list(check, "test").len() > 1, "{name}: {check:?}");
        assert!(member(service, "restart").is_some(), "{name}");
    }
}

#[test]
fn ports_are_open_to_this_machine_only_and_differ() {
    let compose = compose();
    let mut ports = Vec::new();
    for (name, service) in services(&compose) {
        for port in list(service, "ports") {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!((parts.len(), parts[0]), (3, "127.0.0.1"), "{name}: {port}");
            ports.push(parts[1].to_owned());
        }
    }
    for expected in ["7401", "7402", "7404", "7409", "7432", "7492"] {
        assert!(ports.iter().any(|port| port == expected), "{expected} of {ports:?}");
    }
    let all = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), all, "a port is published twice");
}

#[test]
fn each_role_is_a_service_of_one_image_and_knows_where_things_are() {
    let compose = compose();
    let image = text(&compose["services"]["migrate"], "image");
    for (role, variables) in ROLES {
        let service = &compose["services"][role];
        assert_eq!(list(service, "command"), [role]);
        assert_eq!(text(service, "image"), image, "{role}");
        assert_eq!(text(service, "user"), "65532:65532", "{role}");
        let environment = member(service, "environment").expect("an environment");
        for variable in variables {
            let value = text(environment, variable);
            assert!(!value.is_empty(), "{role} lacks {variable}");
            let database = value.rsplit_once('/').map_or("", |(_, database)| database);
            if let Some(of) = variable.strip_suffix("_DATABASE_URL") {
                assert_eq!(database, format!("shop_{}", of.to_lowercase()), "{role}");
            }
        }
    }
}

#[test]
fn what_a_service_waits_for_is_there_and_can_get_ready() {
    let compose = compose();
    let services = services(&compose);
    for (name, service) in &services {
        let Some(needs) = member(service, "depends_on").and_then(Yaml::as_hash) else {
            assert!(["kafka", "postgres"].contains(name), "{name} waits for nothing");
            continue;
        };
        for (needed, how) in needs {
            let needed = needed.as_str().expect("a name");
            assert!(services.iter().any(|(other, _)| *other == needed), "{name}: {needed}");
            let ends = needed == "migrate";
            let expected = if ends { "service_completed_successfully" } else { "service_healthy" };
            assert_eq!(text(how, "condition"), expected, "{name}: {needed}");
        }
    }
}

#[test]
fn the_databases_are_made_with_the_order_of_bytes_and_data_is_kept() {
    let compose = compose();
    let sql = compose["configs"]["databases"]["content"].as_str().expect("SQL");
    for database in ["shop_invoicing", "shop_read", "shop_registry"] {
        let line =
            format!("create database {database} template template0 encoding 'UTF8' locale 'C';");
        assert!(sql.contains(&line), "{database}");
    }
    for (service, volume) in [("kafka", "kafka-data"), ("postgres", "postgres-data")] {
        assert!(member(&compose["volumes"], volume).is_some(), "{volume}");
        let mounts = list(&compose["services"][service], "volumes");
        assert!(mounts[0].starts_with(&format!("{volume}:/")), "{mounts:?}");
    }
}

#[test]
fn the_image_is_pinned_and_not_run_by_root() {
    let dockerfile = read("Dockerfile");
    let toolchain = read("rust-toolchain.toml");
    let toolchain: toml::Table = toolchain.parse().expect("TOML");
    let version = toolchain["toolchain"]["channel"].as_str().expect("a version");
    assert!(dockerfile.contains(&format!("FROM rust:{version}-slim-bookworm AS build")));
    assert!(dockerfile.contains(&format!("RUSTUP_TOOLCHAIN={version}")));
    assert!(!dockerfile.contains(":latest"));
    let last_user = dockerfile.lines().rfind(|line| line.starts_with("USER "));
    assert_eq!(last_user, Some("USER 65532:65532"));
    assert!(dockerfile.contains("\nHEALTHCHECK "));
    let context = read(".dockerignore");
    let workspace: toml::Table = read("Cargo.toml").parse().expect("TOML");
    for crate_ in workspace["workspace"]["members"].as_array().expect("members") {
        let folder = crate_.as_str().expect("a path").split('/').next().unwrap_or_default();
        assert!(context.lines().any(|line| line == format!("!{folder}")), "{folder} is missing");
    }
}

#[test]
fn dependencies_are_bound_to_permissive_licences_and_one_cryptography() {
    let deny: toml::Table = read("deny.toml").parse().expect("TOML");
    let licences = deny["licenses"]["allow"].as_array().expect("licences");
    assert!(licences.iter().filter_map(toml::Value::as_str).all(|name| !name.contains("GPL")));
    let banned = deny["bans"]["deny"].as_array().expect("bans");
    for name in ["ring", "openssl-sys", "native-tls"] {
        assert!(banned.iter().any(|ban| ban["crate"].as_str() == Some(name)), "{name}");
    }
}
