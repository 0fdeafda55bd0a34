//! Who is compared.

use crate::infra::Infra;
use crate::work::{Figures, Run};
use crate::{cqrs, decisions, emmett, transaction, uma};
use anyhow::Result;

/// The name of the setting of those that have a pool of connections to Postgres.
pub(crate) const POOL: &str = "pool";

/// The default of sqlx and of node-postgres is 10, Emmett's guide shows 20. Few are better where
/// transactions fail each other.
const POOLS: [u32; 5] = [4, 10, 20, 32, 64];

/// A way to append other than Foldstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Peer {
    /// Without a library: a transaction per event.
    Plain,
    CqrsEs,
    Disintegrate,
    UmaDb,
    Emmett,
}

impl Peer {
    /// In the order in which they run.
    pub(crate) const ALL: [Peer; 5] =
        [Peer::Plain, Peer::CqrsEs, Peer::Disintegrate, Peer::UmaDb, Peer::Emmett];

    /// The first part of the names of its cases.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Plain => "plain",
            Peer::CqrsEs => "cqrs-es",
            Peer::Disintegrate => "disintegrate",
            Peer::UmaDb => "umadb",
            Peer::Emmett => "emmett",
        }
    }
    /// What can be set.
    pub(crate) fn setting_name(self) -> &'static str {
        match self {
            Peer::UmaDb => "pipelined_writer",
            Peer::Plain | Peer::CqrsEs | Peer::Disintegrate | Peer::Emmett => POOL,
        }
    }
    /// What is tried, for so many writers.
    pub(crate) fn settings(self, writers: usize) -> Vec<u32> {
        if self.setting_name() != POOL {
            // Its default. With the other, which its guide does not name, a read under load once
            // ended in an error of the store.
            return vec![0];
        }
        let most = u32::try_from(writers).unwrap_or(u32::MAX);
        let mut pools: Vec<u32> = POOLS.iter().map(|&pool| pool.min(most)).collect();
        pools.dedup();
        pools
    }
    /// Measures it on a new store, and checks that all it acknowledged is in there.
    pub(crate) async fn measure(self, infra: &Infra, run: &Run) -> Result<Figures> {
        match self {
            Peer::Plain => Box::pin(transaction::measure(infra, run)).await,
            Peer::CqrsEs => Box::pin(cqrs::measure(infra, run)).await,
            Peer::Disintegrate => Box::pin(decisions::measure(infra, run)).await,
            Peer::UmaDb => Box::pin(uma::measure(infra, run)).await,
            Peer::Emmett => Box::pin(emmett::measure(infra, run)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pool_is_larger_than_the_number_of_writers() {
        assert_eq!(Peer::CqrsEs.settings(1), [1]);
        assert_eq!(Peer::CqrsEs.settings(32), [4, 10, 20, 32]);
        assert_eq!(Peer::Emmett.settings(128), [4, 10, 20, 32, 64]);
        assert_eq!(Peer::UmaDb.settings(1), [0]);
    }
}
