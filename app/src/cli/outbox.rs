//! `outbox …`: what operators ask of the way from the event stores to the topics.

use super::AdminArgs;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum OutboxAction {
    /// How far each partition is relayed, and by whom.
    Status(OutboxArgs),
    /// Compares the topics with the event store, record by record.
    Verify(OutboxArgs),
    /// Has the relay send again what the topics lost, from the first missing event on.
    Repair {
        #[command(flatten)]
        args: OutboxArgs,
        /// Do it; without it, it asks.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct OutboxArgs {
    /// Only this topic, such as `shop.invoices`.
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}
