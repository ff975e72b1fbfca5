//! Load balancers that a cluster's type brings along (`CLUSTER_PROVIDED`): one file for each such type.
//!
//! What is configured and shared by all workers is [`Provided`]; what a worker keeps of it is [`ProvidedLb`].

mod aggregate;
mod original_dst;

use std::sync::Arc;

pub use original_dst::OriginalDst;

use self::{aggregate::AggregateLb, original_dst::OriginalDstLb};
use super::{
    Host, LbContext, WorkerCluster,
    dynamic_forward_proxy::{DynamicForwardProxy, dynamic_host},
    worker::ClustersRef,
};

/// How the hosts of a cluster are chosen that brings its own balancer.
#[derive(Debug, Clone)]
pub enum Provided {
    /// Wherever the client's connection wanted to go.
    OriginalDst(Arc<OriginalDst>),
    /// By the health of other clusters, in their order.
    Aggregate(Arc<[Arc<str>]>),
    /// By the names of requests.
    DynamicForwardProxy(DynamicForwardProxy),
}

/// A worker's side of it.
pub(super) enum ProvidedLb {
    OriginalDst(OriginalDstLb),
    Aggregate(AggregateLb),
    DynamicForwardProxy(DynamicForwardProxy, ClustersRef),
}

impl ProvidedLb {
    pub(super) fn new(provided: &Provided, clusters: ClustersRef) -> Self {
        match provided {
            Provided::OriginalDst(shared) => Self::OriginalDst(OriginalDstLb::new(shared.clone())),
            Provided::Aggregate(names) => Self::Aggregate(AggregateLb::new(names.clone(), clusters)),
            Provided::DynamicForwardProxy(by_name) => Self::DynamicForwardProxy(by_name.clone(), clusters),
        }
    }

    /// Picks a host for a request to `cluster`.
    pub(super) fn pick(&self, cluster: &WorkerCluster, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        match self {
            Self::OriginalDst(lb) => lb.pick(cluster, cx),
            Self::Aggregate(lb) => lb.pick(cluster, cx),
            Self::DynamicForwardProxy(by_name, clusters) => {
                let (host, port) = dynamic_host(cx.head, cx.info?, cluster.info.default_port());
                let picked = by_name.pick(&host, port, &clusters.upgrade()?, cx);
                if picked.is_none() && cx.head.is_none() {
                    // A connection does not wait for the name; the next one finds it.
                    by_name.load(&host, port, cluster.server());
                }
                picked
            }
        }
    }

    pub(super) fn as_aggregate(&self) -> Option<&AggregateLb> {
        match self {
            Self::Aggregate(lb) => Some(lb),
            Self::OriginalDst(_) | Self::DynamicForwardProxy(..) => None,
        }
    }
}

#[cfg(test)]
mod tests;
