//! `envoy.clusters.aggregate`: the priorities of several clusters, one after the other.
//!
//! The aggregate chooses a priority by the health of all of them, and the cluster that has it picks the host, with
//! its own policy, connections, limits and statistics.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::{Rc, Weak},
    sync::{self, Arc},
};

use foldhash::fast::RandomState;

use crate::upstream::{Host, HostSet, HostSets, LbContext, WorkerCluster, lb::PriorityLoads, worker::ClustersRef};

/// How many hosts' clusters are remembered before those of hosts that are gone are forgotten.
const OWNERS: usize = 64;

pub struct AggregateLb {
    names: Arc<[Arc<str>]>,
    clusters: ClustersRef,
    order: RefCell<Order>,
    /// The clusters of the hosts that were picked, by the hosts' addresses in memory.
    owners: RefCell<HashMap<*const Host, Owner, RandomState>>,
}

type Owner = (sync::Weak<Host>, Weak<WorkerCluster>);

/// The priorities of the members, as of the hosts they had.
#[derive(Default)]
struct Order {
    members: Vec<Member>,
    /// Member, and priority within it.
    priorities: Vec<(usize, usize)>,
    loads: PriorityLoads,
}

struct Member {
    cluster: Rc<WorkerCluster>,
    hosts: Arc<HostSets>,
}

impl AggregateLb {
    pub fn new(names: Arc<[Arc<str>]>, clusters: ClustersRef) -> Self {
        Self {
            names,
            clusters,
            order: RefCell::default(),
            owners: RefCell::default(),
        }
    }

    pub fn pick(&self, aggregate: &WorkerCluster, cx: &LbContext<'_>) -> Option<Arc<Host>> {
        self.refresh(aggregate);
        let (member, forced) = self.order.borrow().choose(cx.avoid_priorities)?;
        let host = member.choose(&LbContext {
            forced: Some(forced),
            avoid_priorities: &[],
            ..*cx
        })?;
        let mut owners = self.owners.borrow_mut();
        if owners.len() >= OWNERS && owners.len() == owners.capacity() {
            owners.retain(|_, (host, _)| host.strong_count() > 0);
        }
        owners.insert(Arc::as_ptr(&host), (Arc::downgrade(&host), Rc::downgrade(&member)));
        Some(host)
    }

    /// The cluster that a picked host belongs to.
    pub fn owner(&self, host: &Arc<Host>) -> Option<Rc<WorkerCluster>> {
        self.owners.borrow().get(&Arc::as_ptr(host))?.1.upgrade()
    }

    /// The place of a picked host's priority among all.
    pub fn priority_of(&self, host: &Arc<Host>) -> Option<u32> {
        let owner = self.owner(host)?;
        let own = host.attributes().priority as usize;
        let order = self.order.borrow();
        let member = order.members.iter().position(|m| Rc::ptr_eq(&m.cluster, &owner))?;
        let at = order.priorities.iter().position(|p| *p == (member, own))?;
        u32::try_from(at).ok()
    }

    /// Whether any host is well besides those of these priorities.
    pub fn has_available_besides(&self, avoided: &[u32]) -> bool {
        let order = self.order.borrow();
        order.loads.without(&order.sets(), avoided).is_some()
    }

    /// Looks whether members came, went or have other hosts than before.
    fn refresh(&self, aggregate: &WorkerCluster) {
        let Some(clusters) = self.clusters.upgrade() else {
            return;
        };
        let present: Vec<Rc<WorkerCluster>> = self.names.iter().filter_map(|name| clusters.get(name)).collect();
        let mut order = self.order.borrow_mut();
        let unchanged = present.len() == order.members.len()
            && present
                .iter()
                .zip(&order.members)
                .all(|(now, before)| Rc::ptr_eq(now, &before.cluster) && now.has_sets(&before.hosts));
        if !unchanged {
            *order = Order::new(present, aggregate.panic_threshold());
        }
    }
}

impl Order {
    fn new(members: Vec<Rc<WorkerCluster>>, panic_threshold: f64) -> Self {
        let mut order = Self::default();
        for (at, cluster) in members.into_iter().enumerate() {
            let hosts = cluster.sets();
            let with_hosts = hosts.priorities.iter().enumerate().filter(|(_, p)| !p.hosts.is_empty());
            order.priorities.extend(with_hosts.map(|(priority, _)| (at, priority)));
            order.members.push(Member { cluster, hosts });
        }
        order.loads = PriorityLoads::new(&order.sets(), panic_threshold);
        order
    }

    /// The hosts of every priority.
    fn sets(&self) -> Vec<&HostSet> {
        let of =
            |(member, priority): &(usize, usize)| Some(&**self.members.get(*member)?.hosts.priorities.get(*priority)?);
        self.priorities.iter().filter_map(of).collect()
    }

    /// The cluster for a request, and what it has to pick from.
    fn choose(&self, avoided: &[u32]) -> Option<(Rc<WorkerCluster>, crate::upstream::lb::Forced)> {
        let others = match avoided {
            [] => None,
            _ => self.loads.without(&self.sets(), avoided),
        };
        let loads = others.as_ref().unwrap_or(&self.loads);
        let (at, availability) = loads.choose(fastrand::u64(..))?;
        let (member, priority) = *self.priorities.get(at)?;
        Some((self.members.get(member)?.cluster.clone(), (priority, availability)))
    }
}
