//! Both load balancing APIs (`lb_policy` and `load_balancing_policy`) to one [`LbConfig`].

use xds_protos::{
    envoy::{
        config::{
            cluster::v3::{
                LoadBalancingPolicy,
                cluster::{
                    CommonLbConfig, LbConfig as OldConfig, LbPolicy as OldPolicy, LeastRequestLbConfig, MaglevLbConfig,
                    OriginalDstLbConfig, RingHashLbConfig, RoundRobinLbConfig,
                    common_lb_config::{
                        ConsistentHashingLbConfig as OldHashing, LocalityConfigSpecifier as OldLocality,
                    },
                    ring_hash_lb_config::HashFunction as OldHash,
                },
            },
            core::v3::{HealthStatus, HealthStatusSet},
        },
        extensions::load_balancing_policies::{
            cluster_provided::v3::ClusterProvided,
            common::v3::{ConsistentHashingLbConfig, LocalityLbConfig, locality_lb_config::LocalityConfigSpecifier},
            least_request::v3::{LeastRequest, least_request::SelectionMethod},
            maglev::v3::Maglev,
            random::v3::Random,
            ring_hash::v3::{RingHash, ring_hash::HashFunction as NewHash},
            round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
    },
    google::protobuf::Any,
};

use super::{
    SlowStart,
    subset::{self, SubsetConfig},
};
use crate::config::{AnyExt, BuildCx, ConfigResult, percent, unpack};

/// How localities share the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalityLb {
    /// All hosts of a priority are one set. Zone-aware routing needs a local cluster and falls back to this.
    #[default]
    None,
    /// By `LocalityLbEndpoints.load_balancing_weight`.
    Weighted,
}

/// The hash of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    /// xxHash64
    XxHash,
    /// MurmurHash2
    Murmur2,
}

impl LbPolicy {
    /// Whether a request's hash decides which host it goes to.
    pub fn uses_hash(&self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

/// The policy and its parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// Weighted round robin.
    RoundRobin,
    /// The least busy of some.
    LeastRequest {
        /// `choice_count`, 2: how many are compared when weights are equal.
        choices: u32,
        /// `active_request_bias`, 1: how much load lowers a weight when weights differ.
        bias: f64,
        /// `selection_method: FULL_SCAN`: all are compared.
        full_scan: bool,
    },
    /// Any, whatever the weights.
    Random,
    /// Ketama.
    RingHash {
        /// `minimum_ring_size`, 1024
        min: u64,
        /// `maximum_ring_size`, 8 M
        max: u64,
        /// `hash_function`
        function: HashFunction,
        /// `use_hostname_for_hashing`
        use_hostname: bool,
    },
    /// Maglev.
    Maglev {
        /// `table_size`, 65537
        table_size: u64,
        /// `use_hostname_for_hashing`
        use_hostname: bool,
    },
    /// The cluster type chooses (original destination).
    ClusterProvided,
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
    /// `healthy_panic_threshold` in percent, 50; 0 disables panic.
    pub panic_threshold: f64,
    /// `fail_traffic_on_panic`
    pub fail_traffic_on_panic: bool,
    /// `ignore_new_hosts_until_first_hc`: hosts that discovery adds do not count until they were checked.
    pub ignore_new_hosts_until_first_hc: bool,
    /// `lb_subset_config`, or the `subset` policy: hosts are picked within subsets.
    pub subsets: Option<SubsetConfig>,
    /// `common_lb_config` wants hosts hashed by their names, which only clusters of resolved names have.
    pub needs_hostnames: bool,
    /// `override_host_status`: statuses of a host that may be asked for by name.
    pub override_statuses: Vec<HealthStatus>,
    /// `OriginalDstLbConfig`, for original destination clusters.
    pub original_dst: OriginalDstLbConfig,
}

impl LbConfig {
    fn new(policy: LbPolicy) -> Self {
        Self {
            policy,
            slow_start: None,
            needs_hostnames: false,
            locality: LocalityLb::None,
            panic_threshold: 50.0,
            fail_traffic_on_panic: false,
            subsets: None,
            ignore_new_hosts_until_first_hc: false,
            override_statuses: vec![HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Degraded],
            original_dst: OriginalDstLbConfig::default(),
        }
    }
}

/// Reads whichever API was used; `load_balancing_policy` wins.
pub fn build(
    old_policy: i32,
    old_config: Option<OldConfig>,
    new: Option<LoadBalancingPolicy>,
    common: Option<CommonLbConfig>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<LbConfig> {
    let by_extension = new.is_some() || old_policy == OldPolicy::LoadBalancingPolicyConfig as i32;
    let mut config = match new {
        Some(new) => cx.field("load_balancing_policy", |cx| policy_list(new, cx))?,
        None if by_extension => {
            return Err(cx.error("cluster: field load_balancing_policy need to be set"));
        }
        None => legacy(old_policy, old_config, cx)?,
    };
    if let Some(common) = common {
        cx.field("common_lb_config", |cx| {
            common_config(common, by_extension, &mut config, cx)
        })?;
    }
    Ok(config)
}

fn legacy(policy: i32, config: Option<OldConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let policy = OldPolicy::try_from(policy).map_err(|_| cx.error_at("lb_policy", "unknown value"))?;
    let mut original_dst = OriginalDstLbConfig::default();
    let mut slow_start = None;
    let mut choices = 2;
    let mut bias = 1.0;
    let mut ring = (1024, 8 << 20, HashFunction::XxHash);
    let mut table_size = 65537;
    match config {
        Some(OldConfig::RoundRobinLbConfig(proto)) => cx.field("round_robin_lb_config", |cx| {
            coverage!(cx, proto => RoundRobinLbConfig { supported { slow_start_config } });
            slow_start = cx
                .opt("slow_start_config", slow_start_config, SlowStart::old)?
                .flatten();
            Ok(())
        })?,
        Some(OldConfig::LeastRequestLbConfig(proto)) => cx.field("least_request_lb_config", |cx| {
            coverage!(cx, proto => LeastRequestLbConfig {
                supported { choice_count, active_request_bias, slow_start_config }
            });
            slow_start = cx
                .opt("slow_start_config", slow_start_config, SlowStart::old)?
                .flatten();
            choices = choice_count.map_or(2, |v| v.value);
            bias = active_request_bias.map_or(1.0, |v| v.default_value);
            Ok(())
        })?,
        Some(OldConfig::RingHashLbConfig(proto)) => cx.field("ring_hash_lb_config", |cx| {
            coverage!(cx, proto => RingHashLbConfig {
                supported { minimum_ring_size, hash_function, maximum_ring_size }
            });
            ring.0 = minimum_ring_size.map_or(ring.0, |v| v.value);
            ring.1 = maximum_ring_size.map_or(ring.1, |v| v.value);
            if hash_function == OldHash::MurmurHash2 as i32 {
                ring.2 = HashFunction::Murmur2;
            }
            check_ring(ring.0, ring.1, cx)
        })?,
        Some(OldConfig::MaglevLbConfig(proto)) => cx.field("maglev_lb_config", |cx| {
            let MaglevLbConfig { table_size: size } = proto;
            table_size = size.map_or(table_size, |v| v.value);
            check_table(table_size, cx)
        })?,
        Some(OldConfig::OriginalDstLbConfig(proto)) => original_dst = proto,
        None => {}
    }
    let policy = match policy {
        OldPolicy::RoundRobin => LbPolicy::RoundRobin,
        OldPolicy::LeastRequest => LbPolicy::LeastRequest {
            choices,
            bias,
            full_scan: false,
        },
        OldPolicy::Random => LbPolicy::Random,
        OldPolicy::RingHash => LbPolicy::RingHash {
            min: ring.0,
            max: ring.1,
            function: ring.2,
            use_hostname: false,
        },
        OldPolicy::Maglev => LbPolicy::Maglev {
            table_size,
            use_hostname: false,
        },
        OldPolicy::ClusterProvided => LbPolicy::ClusterProvided,
        OldPolicy::LoadBalancingPolicyConfig => {
            return Err(cx.error("cluster: field load_balancing_policy need to be set"));
        }
    };
    let mut config = LbConfig::new(policy);
    config.original_dst = original_dst;
    config.slow_start = slow_start;
    Ok(config)
}

fn check_ring(min: u64, max: u64, cx: &BuildCx<'_>) -> ConfigResult<()> {
    if min > max {
        return Err(cx.error(format!(
            "ring hash: minimum_ring_size ({min}) > maximum_ring_size ({max})"
        )));
    }
    Ok(())
}

fn check_table(size: u64, cx: &BuildCx<'_>) -> ConfigResult<()> {
    let is_prime = size > 1 && (2..).take_while(|d| d * d <= size).all(|d| !size.is_multiple_of(d));
    match is_prime {
        true => Ok(()),
        false => Err(cx.error("The table size of maglev must be prime number")),
    }
}

/// The first policy of the list that is known here.
pub(super) fn policy_list(list: LoadBalancingPolicy, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let LoadBalancingPolicy { policies } = list;
    let mut unknown = Vec::new();
    for (i, policy) in policies.into_iter().enumerate() {
        let Some(extension) = policy.typed_extension_config else {
            continue;
        };
        let any = extension.typed_config.unwrap_or_default();
        if let Some(config) = cx.item("policies", i, |cx| known_policy(&any, cx))? {
            return Ok(config);
        }
        unknown.push(extension.name);
    }
    Err(cx.error(format!(
        "cluster: didn't find a registered load balancer factory for cluster, tried: [{}]",
        unknown.join(", ")
    )))
}

fn known_policy(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Option<LbConfig>> {
    let config = match any.type_name().rsplit('.').next().unwrap_or_default() {
        "RoundRobin" => {
            let proto: RoundRobin = unpack(any, cx)?;
            coverage!(cx, proto => RoundRobin { supported { locality_lb_config, slow_start_config } });
            let mut config = with_locality(LbPolicy::RoundRobin, locality_lb_config, cx);
            config.slow_start = cx
                .opt("slow_start_config", slow_start_config, SlowStart::new)?
                .flatten();
            config
        }
        "LeastRequest" => {
            let proto: LeastRequest = unpack(any, cx)?;
            coverage!(cx, proto => LeastRequest {
                supported {
                    choice_count, active_request_bias, locality_lb_config, enable_full_scan, selection_method,
                    slow_start_config
                }
            });
            let policy = LbPolicy::LeastRequest {
                choices: choice_count.map_or(2, |v| v.value),
                bias: active_request_bias.map_or(1.0, |v| v.default_value),
                full_scan: selection_method == SelectionMethod::FullScan as i32
                    || enable_full_scan.is_some_and(|v| v.value),
            };
            let mut config = with_locality(policy, locality_lb_config, cx);
            config.slow_start = cx
                .opt("slow_start_config", slow_start_config, SlowStart::new)?
                .flatten();
            config
        }
        "Random" => {
            let proto: Random = unpack(any, cx)?;
            coverage!(cx, proto => Random { supported { locality_lb_config } });
            with_locality(LbPolicy::Random, locality_lb_config, cx)
        }
        "ClusterProvided" => {
            let ClusterProvided {} = unpack(any, cx)?;
            LbConfig::new(LbPolicy::ClusterProvided)
        }
        "WrrLocality" => {
            let proto: WrrLocality = unpack(any, cx)?;
            coverage!(cx, proto => WrrLocality { supported { endpoint_picking_policy } });
            let mut config = cx.required("endpoint_picking_policy", endpoint_picking_policy, policy_list)?;
            config.locality = LocalityLb::Weighted;
            config
        }
        "Subset" => subset::policy(unpack(any, cx)?, cx)?,
        "RingHash" => ring_hash(unpack(any, cx)?, cx)?,
        "Maglev" => maglev(unpack(any, cx)?, cx)?,
        _ => return Ok(None),
    };
    Ok(Some(config))
}

fn ring_hash(proto: RingHash, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => RingHash {
        supported {
            hash_function, minimum_ring_size, maximum_ring_size, use_hostname_for_hashing, consistent_hashing_lb_config,
            locality_weighted_lb_config
        }
        ignored {
            hash_balance_factor: "the load of a host is not bounded"
        }
    });
    let use_hostname = hashing(consistent_hashing_lb_config, cx)?;
    let (min, max) = (
        minimum_ring_size.map_or(1024, |v| v.value),
        maximum_ring_size.map_or(8 << 20, |v| v.value),
    );
    check_ring(min, max, cx)?;
    let function = match hash_function == NewHash::MurmurHash2 as i32 {
        true => HashFunction::Murmur2,
        false => HashFunction::XxHash,
    };
    let mut config = LbConfig::new(LbPolicy::RingHash {
        min,
        max,
        function,
        use_hostname: use_hostname || use_hostname_for_hashing,
    });
    if locality_weighted_lb_config.is_some() {
        config.locality = LocalityLb::Weighted;
    }
    Ok(config)
}

fn maglev(proto: Maglev, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    coverage!(cx, proto => Maglev {
        supported { table_size, consistent_hashing_lb_config, locality_weighted_lb_config }
    });
    let use_hostname = hashing(consistent_hashing_lb_config, cx)?;
    let table_size = table_size.map_or(65537, |v| v.value);
    check_table(table_size, cx)?;
    let mut config = LbConfig::new(LbPolicy::Maglev {
        table_size,
        use_hostname,
    });
    if locality_weighted_lb_config.is_some() {
        config.locality = LocalityLb::Weighted;
    }
    Ok(config)
}

fn hashing(proto: Option<ConsistentHashingLbConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<bool> {
    let Some(proto) = proto else { return Ok(false) };
    coverage!(cx, proto => ConsistentHashingLbConfig {
        supported { use_hostname_for_hashing }
        ignored {
            hash_balance_factor: "the load of a host is not bounded",
            hash_policy: "the route's hash policy is used"
        }
    });
    Ok(use_hostname_for_hashing)
}

fn with_locality(policy: LbPolicy, locality: Option<LocalityLbConfig>, cx: &mut BuildCx<'_>) -> LbConfig {
    let mut config = LbConfig::new(policy);
    match locality.and_then(|l| l.locality_config_specifier) {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => config.locality = LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            config.fail_traffic_on_panic = zone.fail_traffic_on_panic;
            cx.ignored("zone_aware_lb_config", "without a local cluster all zones are one");
        }
        None => {}
    }
    config
}

fn common_config(
    proto: CommonLbConfig,
    by_extension: bool,
    config: &mut LbConfig,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    coverage!(cx, proto => CommonLbConfig {
        supported {
            healthy_panic_threshold, consistent_hashing_lb_config, override_host_status, locality_config_specifier,
            ignore_new_hosts_until_first_hc
        }
        ignored {
            update_merge_window: "endpoint updates are applied at once",
            close_connections_on_host_set_change: "connections to hosts that stay are kept"
        }
    });
    config.ignore_new_hosts_until_first_hc = ignore_new_hosts_until_first_hc;
    if let Some(threshold) = healthy_panic_threshold {
        config.panic_threshold = percent(&threshold);
    }
    if let Some(HealthStatusSet { statuses }) = override_host_status {
        config.override_statuses = statuses
            .into_iter()
            .filter_map(|s| HealthStatus::try_from(s).ok())
            .collect();
    }
    if let Some(proto) = consistent_hashing_lb_config {
        coverage!(cx, proto => OldHashing {
            supported { use_hostname_for_hashing }
            ignored { hash_balance_factor: "the load of a host is not bounded" }
        });
        match &mut config.policy {
            LbPolicy::RingHash { use_hostname, .. } | LbPolicy::Maglev { use_hostname, .. } => {
                *use_hostname |= use_hostname_for_hashing;
            }
            _ => {}
        }
        config.needs_hostnames = use_hostname_for_hashing;
    }
    match locality_config_specifier {
        // With the extension API the policy's own locality configuration counts.
        _ if by_extension => {}
        Some(OldLocality::LocalityWeightedLbConfig(_)) => config.locality = LocalityLb::Weighted,
        Some(OldLocality::ZoneAwareLbConfig(zone)) => config.fail_traffic_on_panic = zone.fail_traffic_on_panic,
        None => {}
    }
    Ok(())
}
