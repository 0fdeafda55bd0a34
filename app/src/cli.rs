//! The command line. Its help texts are what people read first.

mod outbox;
mod streams;

pub(crate) use outbox::{OutboxAction, OutboxArgs};
pub(crate) use streams::{
    PREFIX, StreamName, StreamsAction, StreamsLs, StreamsShow, StreamsState, StreamsTail, is_prefix,
};

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Event-sourced commands, topics and read models.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The configuration file; `foldstream.toml` where it is there.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Everything in one process, with Kafka and Postgres as its children.
    Dev(DevArgs),
    /// Role: validates commands and appends their events.
    Commands {
        /// Only these services.
        #[arg(long, value_delimiter = ',')]
        services: Vec<String>,
    },
    /// Role: moves events from the event stores to their topics.
    Relay,
    /// Role: folds topics into read models. With a subcommand: operations on them.
    #[command(args_conflicts_with_subcommands = true)]
    Projections {
        /// Only these read models.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// An operation in place of the role.
        #[command(subcommand)]
        operation: Option<ProjectionsAction>,
    },
    /// Role: serves the read models.
    Queries,
    /// Role: a Confluent-compatible schema registry.
    Registry,
    /// Creates or brings up to date all databases, then ends.
    Migrate,
    /// Imports documents from files, over HTTP; a second run changes nothing.
    Import(ImportArgs),
    /// Streams: what happened to one aggregate, who did it and why.
    #[command(subcommand)]
    Streams(StreamsAction),
    /// The way from the event stores to the topics: how far, whether whole, mending.
    #[command(subcommand)]
    Outbox(OutboxAction),
    /// Topics: partitions, settings, watermarks.
    #[command(subcommand)]
    Topics(TopicsAction),
    /// Schemas of the events.
    #[command(subcommand)]
    Schemas(SchemasAction),
    /// One screen: is it well?
    Status(AdminArgs),
    /// Looks for what is missing or set wrong on this machine and in the infrastructure.
    Doctor(AdminArgs),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigAction),
    /// Completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Where data, password and logs are kept between runs.
    #[arg(long, default_value = ".dev", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The API's port; the others follow from it.
    #[arg(long, default_value_t = 7400, value_name = "PORT")]
    pub(crate) port_base: u16,
    /// One JSON object on stdout when ready, JSON logs on stderr.
    #[arg(long)]
    pub(crate) json: bool,
    /// Without the month of real sales.
    #[arg(long)]
    pub(crate) no_sample: bool,
    /// Kafka, Postgres and the registry only.
    #[arg(long)]
    pub(crate) only_infra: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AdminArgs {
    /// The admin address of a running process.
    #[arg(long, env = "FOLDSTREAM_ADMIN", default_value = "http://127.0.0.1:7409")]
    pub(crate) admin: String,
    /// For machines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// What kind of files they are.
    pub(crate) kind: String,
    /// The files, plain or gzip.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where the commands go.
    #[arg(long, env = "FOLDSTREAM_API", default_value = "http://127.0.0.1:7400")]
    pub(crate) url: String,
    /// Documents under way at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// Where refused rows are written, with line and reason [default: <KIND>.rejects.csv].
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// How many seconds the server may be away before the import gives up.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) patience: u64,
    /// One JSON object at the end.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectionsAction {
    /// All read models.
    Ls(AdminArgs),
    /// One read model, with its partitions.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsAction {
    /// All topics of the application.
    Ls(AdminArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemasAction {
    /// The schemas that the code has, with the numbers of their files, and their ids and versions
    /// in the registry.
    Ls(SchemasArgs),
    /// Compares the files with the code and each newer schema with all older ones; asks the
    /// registry too, where one is named or configured. Fails when something is refused.
    Check(SchemasArgs),
    /// Registers what the registry does not have, after it said that all of it is compatible.
    Register(SchemasArgs),
    /// Writes the schemas as numbered files.
    Generate {
        /// Where.
        #[arg(long, default_value = "schemas/avro", value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SchemasArgs {
    /// Where the numbered files are.
    #[arg(long, default_value = "schemas/avro", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The registry to ask, in place of the configured one.
    #[arg(long, value_name = "URL")]
    pub(crate) registry: Option<String>,
    /// Asks no registry, also where one is configured.
    #[arg(long, conflicts_with = "registry")]
    pub(crate) offline: bool,
    /// For machines.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Every key with its value and where it comes from; secrets masked.
    Show {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}
