//! What `dev` says when everything runs.

use super::infra::Infra;
use crate::App;
use crate::import::ImportSummary;
use crate::settings::Settings;
use serde::Serialize;
use std::time::Duration;

/// Where everything is.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// Commands and queries on one port.
    pub api: Option<String>,
    /// Health, metrics, operations.
    pub admin: String,
    /// The schema registry.
    pub registry: String,
    /// Kafka's bootstrap servers.
    pub kafka: String,
    /// Postgres, as its administrator.
    pub postgres: String,
    /// The read models, as their owner.
    pub read_database: String,
    /// The read models, as an analyst.
    pub analyst: Option<String>,
    /// The operators' console.
    pub console: Option<String>,
    /// A token for the API, once it asks for one.
    pub token: Option<String>,
}

impl Addresses {
    pub(super) fn new(settings: &Settings, infra: &Infra, only_infra: bool) -> Self {
        let http = |address: &str| format!("http://{address}");
        let api = (!only_infra).then(|| http(&settings.listen.api));
        Addresses {
            console: api.as_ref().map(|api| format!("{api}/console")),
            api,
            admin: http(&settings.listen.admin),
            registry: settings.registry.url.clone().unwrap_or_default(),
            kafka: infra.kafka.clone(),
            postgres: infra.postgres.clone(),
            read_database: infra.read_database.clone(),
            analyst: infra.analyst.clone().filter(|_| !only_infra),
            token: None,
        }
    }
}

/// `{"ready":true, …}`
#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    #[serde(flatten)]
    addresses: &'a Addresses,
}

pub(super) fn print(
    app: &App,
    addresses: &Addresses,
    sample: Option<&ImportSummary>,
    after: Duration,
    json: bool,
) {
    if json {
        let ready = Ready { ready: true, addresses };
        println!("{}", serde_json::to_string(&ready).unwrap_or_default());
        return;
    }
    println!("\n{} is ready after {:.1} s. Ctrl-C stops all.", app.name, after.as_secs_f64());
    if let Some(sample) = sample {
        let documents: Vec<String> =
            sample.documents.iter().map(|(name, count)| format!("{count} {name}")).collect();
        println!("Loaded {} rows of real sales: {}.", sample.rows_posted, documents.join(", "));
    }
    println!();
    let mut lines = vec![
        ("admin", addresses.admin.clone()),
        ("registry", addresses.registry.clone()),
        ("Kafka", addresses.kafka.clone()),
        ("Postgres", addresses.postgres.clone()),
    ];
    if let Some(api) = &addresses.api {
        lines.insert(0, ("API", format!("{api}   (try it at {api}/docs)")));
    }
    if let Some(analyst) = &addresses.analyst {
        lines.push(("analysts", analyst.clone()));
    }
    for (name, address) in lines {
        println!("  {name:<9} {address}");
    }
    let hints = app.hints.map(|hints| hints(addresses)).unwrap_or_default();
    if addresses.api.is_some() && !hints.is_empty() {
        println!("\nTo paste:");
        hints.iter().for_each(|hint| println!("  {hint}"));
    }
}
