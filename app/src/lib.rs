//! Foldstream: write pure `decide` and `fold` functions; get an HTTP command API, an outbox that
//! never loses or reorders, Kafka topics with schemas, and exactly-once read models with an API.
//!
//! An application is a list of what it consists of; roles, command line and contracts derive from
//! the lists:
//!
//! ```ignore
//! fn main() -> ExitCode {
//!     App::new("shop").service(invoicing()).read_models(shop_projections::all()).run()
//! }
//! ```

mod cli;
mod contract;
mod dev;
mod failure;
pub mod import;
mod operations;
mod process;
mod roles;
mod run;
mod schemas;
pub mod settings;

pub use dev::Addresses;
pub use failure::{Exit, Failure};
pub use foldstream_commands::Service;

use foldstream_core::AnyReadModel;
use import::Importer;
use std::process::ExitCode;
use std::sync::Arc;

/// What an application consists of.
pub struct App {
    pub(crate) name: &'static str,
    pub(crate) services: Vec<Service>,
    pub(crate) read_models: Vec<Arc<dyn AnyReadModel>>,
    pub(crate) importers: Vec<Box<dyn Importer>>,
    pub(crate) sample: Option<Sample>,
    pub(crate) hints: Option<fn(&Addresses) -> Vec<String>>,
}

/// Real data that `dev` loads, so that nobody meets an empty screen.
pub struct Sample {
    /// The importer that reads it.
    pub importer: &'static str,
    /// The name of the file.
    pub file_name: &'static str,
    /// Its bytes.
    pub bytes: &'static [u8],
}

impl App {
    /// An application of this name; its topics begin with it.
    pub fn new(name: &'static str) -> Self {
        let (services, read_models, importers) = (Vec::new(), Vec::new(), Vec::new());
        App { name, services, read_models, importers, sample: None, hints: None }
    }
    /// With this service: its aggregates, its own database.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }
    /// With these read models.
    #[must_use]
    pub fn read_models(mut self, read_models: Vec<Arc<dyn AnyReadModel>>) -> Self {
        self.read_models.extend(read_models);
        self
    }
    /// With this kind of file to import.
    #[must_use]
    pub fn importer(mut self, importer: impl Importer + 'static) -> Self {
        self.importers.push(Box::new(importer));
        self
    }
    /// With this sample.
    #[must_use]
    pub fn sample(mut self, sample: Sample) -> Self {
        self.sample = Some(sample);
        self
    }
    /// With these lines to paste, shown by `dev` when everything runs.
    #[must_use]
    pub fn hints(mut self, hints: fn(&Addresses) -> Vec<String>) -> Self {
        self.hints = Some(hints);
        self
    }
    /// Does what the command line asks for.
    pub fn run(self) -> ExitCode {
        run::run(self)
    }

    /// The full names of the topics.
    pub(crate) fn topics(&self) -> Vec<String> {
        let aggregates = self.services.iter().flat_map(Service::aggregates);
        aggregates.map(|aggregate| format!("{}.{}", self.name, aggregate.name())).collect()
    }
    pub(crate) fn importer_named(&self, name: &str) -> Option<&dyn Importer> {
        self.importers.iter().find(|importer| importer.name() == name).map(AsRef::as_ref)
    }
}
