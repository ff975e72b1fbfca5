//! Both load balancing APIs (`lb_policy` and `load_balancing_policy`) to one [`LbConfig`].
//!
//! A policy is one file here, which reads its message, and one in `upstream/lb/policy`, which picks hosts by it.

mod client_side_wrr;
mod cluster_provided;
mod common;
mod hashing;
mod least_request;
mod legacy;
mod list;
mod locality;
mod maglev;
mod override_host;
mod random;
mod ring_hash;
mod round_robin;
mod slow_start;
mod subset;
mod wrr_locality;
mod zone;

use std::sync::Arc;

use xds_protos::envoy::config::{
    cluster::v3::{
        LoadBalancingPolicy,
        cluster::{CommonLbConfig, LbConfig as OldConfig, LbPolicy as OldPolicy, LbSubsetConfig, OriginalDstLbConfig},
    },
    core::v3::HealthStatus,
};

use crate::{
    config::{BuildCx, ConfigResult},
    route::HashPolicies,
};

pub use client_side_wrr::ClientSideWrr;
pub use hashing::{HashFunction, Hashing};
pub use least_request::LeastRequest;
pub use locality::LocalityLb;
pub use maglev::Maglev;
pub use override_host::OverrideHosts;
pub use ring_hash::RingHash;
pub use slow_start::SlowStart;
pub use subset::{Criteria, SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector};
pub use zone::ZoneAware;

/// The policy and its parameters.
#[derive(Debug, Clone)]
pub enum LbPolicy {
    /// Weighted round robin.
    RoundRobin,
    /// The least busy of some.
    LeastRequest(LeastRequest),
    /// Any, whatever the weights.
    Random,
    /// Ketama.
    RingHash(RingHash),
    /// Maglev.
    Maglev(Maglev),
    /// The cluster type chooses (original destination).
    ClusterProvided,
}

impl LbPolicy {
    /// Whether a request's hash decides which host it goes to.
    pub fn uses_hash(&self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }

    /// The options of a policy that hashes.
    pub fn hashing(&self) -> Option<&Hashing> {
        match self {
            Self::RingHash(ring) => Some(&ring.hashing),
            Self::Maglev(maglev) => Some(&maglev.hashing),
            _ => None,
        }
    }
}

/// The policy and what is common to all policies.
#[derive(Debug, Clone)]
pub struct LbConfig {
    /// The policy.
    pub policy: LbPolicy,
    /// `slow_start_config`, of round robin and least request.
    pub slow_start: Option<SlowStart>,
    /// How localities share the load.
    pub locality: LocalityLb,
    /// `healthy_panic_threshold` in whole percent, 50; 0 disables panic.
    pub panic_threshold: f64,
    /// `zone_aware_lb_config`, which has effect where there is a local cluster.
    pub zone: ZoneAware,
    /// `fail_traffic_on_panic`
    pub fail_traffic_on_panic: bool,
    /// `ignore_new_hosts_until_first_hc`: hosts that discovery adds do not count until they were checked.
    pub ignore_new_hosts_until_first_hc: bool,
    /// `lb_subset_config`, or the `subset` policy: hosts are picked within subsets.
    pub subsets: Option<SubsetConfig>,
    /// `common_lb_config` wants hosts hashed by their names, which only clusters of resolved names have.
    pub needs_hostnames: bool,
    /// `hash_policy` of a policy that hashes; counts before those of the cluster and of the route.
    pub hash_policy: Option<Arc<HashPolicies>>,
    /// `override_host`: the request may name its hosts.
    pub override_hosts: Option<Arc<OverrideHosts>>,
    /// `client_side_weighted_round_robin`: hosts report their load.
    pub client_side: Option<Arc<ClientSideWrr>>,
    /// `override_host_status`: statuses of a host that may be asked for by name.
    pub override_statuses: Vec<HealthStatus>,
    /// `OriginalDstLbConfig`, for original destination clusters.
    pub original_dst: Option<OriginalDstLbConfig>,
}

impl LbConfig {
    fn new(policy: LbPolicy) -> Self {
        Self {
            policy,
            slow_start: None,
            needs_hostnames: false,
            locality: LocalityLb::None,
            panic_threshold: 50.0,
            zone: ZoneAware::default(),
            fail_traffic_on_panic: false,
            subsets: None,
            hash_policy: None,
            override_hosts: None,
            client_side: None,
            ignore_new_hosts_until_first_hc: false,
            override_statuses: vec![HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Degraded],
            original_dst: None,
        }
    }
}

/// What a cluster says of load balancing. The same of many clusters makes one [`LbConfig`], so that it has no state.
#[derive(Clone, PartialEq)]
pub struct Parts {
    /// `lb_policy`
    pub policy: i32,
    /// `lb_config`
    pub config: Option<OldConfig>,
    /// `load_balancing_policy`
    pub policies: Option<LoadBalancingPolicy>,
    /// `common_lb_config`
    pub common: Option<CommonLbConfig>,
    /// `lb_subset_config`
    pub subsets: Option<LbSubsetConfig>,
}

/// Reads whichever API was used; `load_balancing_policy` wins. `cluster` is named in errors.
pub fn build(parts: Parts, cluster: &str, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let Parts {
        policy,
        config: old_config,
        policies,
        common,
        subsets,
    } = parts;
    let by_extension = policies.is_some() || policy == OldPolicy::LoadBalancingPolicyConfig as i32;
    let mut config = match policies {
        Some(policies) => cx.field("load_balancing_policy", |cx| list::build(policies, cx))?,
        None if by_extension => return Err(legacy::needs_extension(cx)),
        None => legacy::build(policy, old_config, cx)?,
    };
    if let Some(common) = common {
        if by_extension && (common.consistent_hashing_lb_config.is_some() || common.locality_config_specifier.is_some())
        {
            return Err(cx.error(
                "cluster: load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, \
                 locality_weighted_lb_config, consistent_hashing_lb_config) of common_lb_config",
            ));
        }
        cx.field("common_lb_config", |cx| {
            common::apply(common, by_extension, &mut config, cx)
        })?;
    }
    if let Some(subsets) = subsets {
        if matches!(config.policy, LbPolicy::ClusterProvided) {
            return Err(cx.error(format!(
                "cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config for cluster '{cluster}'"
            )));
        }
        config.subsets = cx.field("lb_subset_config", |cx| subset::legacy(subsets, cx))?;
    }
    Ok(config)
}
