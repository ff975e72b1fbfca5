//! `predictive_preconnect_ratio`: a request connects to the hosts of those that will come after it.

use std::{rc::Rc, sync::Arc};

use super::{Health, Host, LbContext, PoolOptions, WorkerCluster, config::LbPolicy, pool::Load};

/// How many connections one request opens for those to come, at most; Envoy's number.
const MOST_PREDICTED: usize = 3;

impl WorkerCluster {
    /// Connects to the hosts that are expected to be picked next (`predictive_preconnect_ratio`).
    pub(super) fn preconnect(self: &Rc<Self>, options: &PoolOptions) {
        let ratio = self.info.preconnect.predictive;
        for _ in 0..MOST_PREDICTED {
            let load = (self.pools.borrow().values().flatten()).fold(Load::default(), |sum, pool| sum + pool.load());
            if !load.exceeds(ratio, 1) {
                return;
            }
            let next = self.peek().and_then(|host| self.pool(&host, options));
            if next.is_none_or(|pool| !pool.preconnect(ratio)) {
                return;
            }
        }
    }

    /// The host that a request after this one will be given. As in Envoy only where that can be told, and for no more
    /// requests than there are hosts.
    fn peek(&self) -> Option<Arc<Host>> {
        let foreseeable = matches!(self.info.lb.policy, LbPolicy::RoundRobin | LbPolicy::Random);
        let (_, usable) = self.membership();
        if !foreseeable || self.info.lb.subsets.is_some() || self.foreseen.borrow().len() as u64 >= usable {
            return None;
        }
        let mut balancer = self.balancer.borrow_mut();
        balancer.refresh(&self.published().hosts.load());
        let (host, _) = balancer.pick(&self.info.lb, &LbContext::default());
        self.foreseen.borrow_mut().extend(host.clone());
        host
    }

    /// The host that was foreseen for this request, if one was.
    pub(super) fn take_foreseen(&self) -> Option<Arc<Host>> {
        let mut foreseen = self.foreseen.borrow_mut();
        std::iter::from_fn(|| foreseen.pop_front()).find(|host| !host.is_removed() && host.health() == Health::Healthy)
    }
}
