//! Load balancers that a cluster's type brings along (`CLUSTER_PROVIDED`): one file for each such type.
//!
//! What is configured and shared by all workers is [`Provided`]; what a worker keeps of it is [`ProvidedLb`].

mod aggregate;
mod original_dst;

use std::sync::Arc;

pub use original_dst::OriginalDst;

use self::{aggregate::AggregateLb, original_dst::OriginalDstLb};
use super::{Host, LbContext, WorkerCluster, worker::ClustersRef};

/// How the hosts of a cluster are chosen that brings its own balancer.
#[derive(Debug, Clone)]
pub enum Provided {
    /// Wherever the client's connection wanted to go.
    OriginalDst(Arc<OriginalDst>),
    /// By the health of other clusters, in their order.
    Aggregate(Arc<[Arc<str>]>),
}

/// A worker's side of it.
pub(super) enum ProvidedLb {
    OriginalDst(OriginalDstLb),
    Aggregate(AggregateLb),
}

impl ProvidedLb {
    pub(super) fn new(provided: &Provided, clusters: ClustersRef) -> Self {
        match provided {
            Provided::OriginalDst(shared) => Self::OriginalDst(OriginalDstLb::new(shared.clone())),
            Provided::Aggregate(names) => Self::Aggregate(AggregateLb::new(names.clone(), clusters)),
        }
    }

    /// Picks a host for a request to `cluster`.
    pub(super) fn pick(&self, cluster: &WorkerCluster, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        match self {
            Self::OriginalDst(lb) => lb.pick(cluster, cx),
            Self::Aggregate(lb) => lb.pick(cluster, cx),
        }
    }

    pub(super) fn as_aggregate(&self) -> Option<&AggregateLb> {
        match self {
            Self::Aggregate(lb) => Some(lb),
            Self::OriginalDst(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
