//! The schemas of the events: as files, by rules, and in the registry.

mod files;
mod online;
mod rules;

pub(crate) use files::generate;
pub(crate) use online::{check, ls, refuse_incompatible, register};

use crate::App;
use foldstream_core::EventSchema;

/// An event of the application with its topic.
#[derive(Clone, Copy)]
pub(crate) struct Published {
    /// The aggregate type, such as `invoices`: the folder of its files.
    pub(crate) aggregate: &'static str,
    pub(crate) schema: &'static EventSchema,
}
impl Published {
    /// Every event of the application.
    pub(crate) fn all(app: &App) -> Vec<Self> {
        let aggregates = app.services.iter().flat_map(crate::Service::aggregates);
        let published = aggregates.flat_map(|aggregate| {
            let aggregate_name = aggregate.name();
            let one = move |schema| Published { aggregate: aggregate_name, schema };
            aggregate.events().iter().map(one)
        });
        published.collect()
    }
    pub(crate) fn topic(&self, app: &App) -> String {
        format!("{}.{}", app.name, self.aggregate)
    }
    /// The schema's text, as it is registered.
    pub(crate) fn text(&self) -> String {
        self.schema.json.to_string()
    }
}

/// The registry's subject of an event: topic and record name.
pub(crate) fn subject(topic: &str, schema: &EventSchema) -> String {
    format!("{topic}-{}", schema.full_name)
}
