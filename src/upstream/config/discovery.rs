//! Where a cluster's endpoints come from.

use std::{net::SocketAddr, time::Duration};

use xds_protos::{
    envoy::{
        config::{
            cluster::v3::cluster::{
                ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
                OriginalDstLbConfig, RefreshRate,
            },
            core::v3::ConfigSource,
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::clusters::dns::v3::{DnsCluster, dns_cluster::RefreshRate as DnsRefreshRate},
    },
    google::protobuf as pb,
};

use super::{
    Assignment, LbConfig, LbPolicy,
    endpoints::{self, from_assignment},
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, unpack},
    net::Address,
};

/// Where the endpoints come from.
#[derive(Debug)]
pub enum Discovery {
    /// They are in the cluster.
    Static(Assignment),
    /// From a control plane.
    Eds(EdsOptions),
    /// All addresses of names.
    StrictDns(DnsOptions, Vec<DnsTarget>, Assignment),
    /// One host, connecting to the present addresses of a name.
    LogicalDns(DnsOptions, Vec<DnsTarget>, Assignment),
    /// Wherever the client's connection wanted to go.
    OriginalDst(OriginalDstLbConfig),
}

impl Discovery {
    /// The type's name, of clusters whose hosts cannot be hashed by their names.
    pub fn without_hostnames(&self) -> Option<&'static str> {
        match self {
            Self::StrictDns(..) => None,
            Self::Static(_) => Some("static"),
            Self::Eds(_) => Some("eds"),
            Self::LogicalDns(..) => Some("logical_dns"),
            Self::OriginalDst(_) => Some("original_dst"),
        }
    }
}

/// `eds_cluster_config`
#[derive(Debug, Clone)]
pub struct EdsOptions {
    /// `service_name`, or the cluster's name.
    pub service_name: String,
    /// `eds_config`
    pub source: ConfigSource,
}

/// A name to resolve. Its endpoint stands in the assignment with a placeholder address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsTarget {
    /// The placeholder in the assignment.
    pub placeholder: Address,
    /// The name.
    pub name: String,
    /// The port to connect to.
    pub port: u16,
}

/// `dns_lookup_family`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsFamily {
    /// IPv6 if there are any, else IPv4.
    #[default]
    Auto,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv4 if there are any, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// How names are resolved.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// `dns_refresh_rate`, 5 s
    pub refresh: Duration,
    /// `dns_failure_refresh_rate`: base and maximum; the refresh rate without it.
    pub failure: Option<(Duration, Duration)>,
    /// `dns_jitter`: added at random.
    pub jitter: Duration,
    /// `respect_dns_ttl`
    pub respect_ttl: bool,
    /// `dns_lookup_family`
    pub family: DnsFamily,
}

const DEFAULT_REFRESH: Duration = Duration::from_secs(5);

impl DnsOptions {
    /// From the fields of `Cluster`.
    pub fn from_cluster(
        refresh: Option<pb::Duration>,
        failure: Option<RefreshRate>,
        jitter: Option<pb::Duration>,
        respect_ttl: bool,
        family: i32,
    ) -> Self {
        Self {
            refresh: refresh.or_duration(DEFAULT_REFRESH),
            failure: failure.map(
                |RefreshRate {
                     base_interval,
                     max_interval,
                 }| rates(base_interval, max_interval),
            ),
            jitter: jitter.or_duration(Duration::ZERO),
            respect_ttl,
            family: match DnsLookupFamily::try_from(family) {
                Ok(DnsLookupFamily::V4Only) => DnsFamily::V4Only,
                Ok(DnsLookupFamily::V6Only) => DnsFamily::V6Only,
                Ok(DnsLookupFamily::V4Preferred) => DnsFamily::V4Preferred,
                Ok(DnsLookupFamily::All) => DnsFamily::All,
                Ok(DnsLookupFamily::Auto) | Err(_) => DnsFamily::Auto,
            },
        }
    }
}

/// Base and maximum; the maximum is ten times the base when unset.
fn rates(base: Option<pb::Duration>, max: Option<pb::Duration>) -> (Duration, Duration) {
    let base = base.or_duration(DEFAULT_REFRESH);
    (base, max.or_duration(base * 10))
}

/// Sorts out the type and reads what belongs to it.
pub fn build(
    discovery_type: ClusterDiscoveryType,
    cluster: &str,
    eds: Option<EdsClusterConfig>,
    assignment: Option<ClusterLoadAssignment>,
    dns: DnsOptions,
    lb: &LbConfig,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    let discovery_type = match discovery_type {
        ClusterDiscoveryType::Type(t) => {
            DiscoveryType::try_from(t).map_err(|_| cx.error_at("type", "unknown value"))?
        }
        ClusterDiscoveryType::ClusterType(custom) => {
            return cx.field("cluster_type", |cx| by_extension(custom, assignment, cx));
        }
    };
    if discovery_type != DiscoveryType::Eds && eds.is_some() {
        return Err(cx.error("eds_cluster_config set in a non-EDS cluster"));
    }
    if (discovery_type == DiscoveryType::OriginalDst) != (lb.policy == LbPolicy::ClusterProvided) {
        return Err(cx.error(format!(
            "cluster: LB policy CLUSTER_PROVIDED and type ORIGINAL_DST need each other for cluster '{cluster}'"
        )));
    }
    match discovery_type {
        DiscoveryType::Static => Ok(Discovery::Static(match assignment {
            Some(assignment) => cx.field("load_assignment", |cx| from_assignment(assignment, cx))?,
            None => Assignment::default(),
        })),
        DiscoveryType::StrictDns => dns_targets(assignment, cx).map(|(t, a)| Discovery::StrictDns(dns, t, a)),
        DiscoveryType::LogicalDns => logical(dns, assignment, cx),
        DiscoveryType::Eds => {
            let Some(EdsClusterConfig {
                eds_config,
                service_name,
            }) = eds
            else {
                return Err(cx.error("cannot create an EDS cluster without an EDS config"));
            };
            let Some(source) = eds_config else {
                return Err(cx.error_at("eds_cluster_config.eds_config", "value is required"));
            };
            cx.field("eds_cluster_config.eds_config", |cx| cx.server.xds.check(&source, cx))?;
            Ok(Discovery::Eds(EdsOptions {
                service_name: if service_name.is_empty() {
                    cluster.to_owned()
                } else {
                    service_name
                },
                source,
            }))
        }
        DiscoveryType::OriginalDst => {
            if assignment.is_some() {
                return Err(cx.error("ORIGINAL_DST clusters must have no load assignment configured"));
            }
            Ok(Discovery::OriginalDst(lb.original_dst.clone()))
        }
    }
}

fn by_extension(
    proto: CustomClusterType,
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    let CustomClusterType { name, typed_config } = proto;
    let any = typed_config.unwrap_or_default();
    if any.type_name() != "envoy.extensions.clusters.dns.v3.DnsCluster" {
        return Err(cx.error(format!(
            "Didn't find a registered cluster factory implementation for name: '{name}'"
        )));
    }
    let proto: DnsCluster = unpack(&any, cx)?;
    coverage!(cx, proto => DnsCluster {
        supported {
            dns_refresh_rate, dns_failure_refresh_rate, respect_dns_ttl, dns_jitter, dns_lookup_family,
            all_addresses_in_single_endpoint
        }
        ignored {
            typed_dns_resolver_config: "the system's resolver is used",
            dns_min_refresh_rate: "names are refreshed at their rate"
        }
    });
    // Its enum starts with UNSPECIFIED, one before the cluster's.
    let family = (dns_lookup_family - 1).max(0);
    let mut dns = DnsOptions::from_cluster(dns_refresh_rate, None, dns_jitter, respect_dns_ttl, family);
    dns.failure = dns_failure_refresh_rate.map(
        |DnsRefreshRate {
             base_interval,
             max_interval,
         }| rates(base_interval, max_interval),
    );
    if all_addresses_in_single_endpoint {
        logical(dns, assignment, cx)
    } else {
        dns_targets(assignment, cx).map(|(t, a)| Discovery::StrictDns(dns, t, a))
    }
}

fn logical(
    dns: DnsOptions,
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    let (targets, assignment) = dns_targets(assignment, cx)?;
    if targets.len() != 1 {
        return Err(cx.error("LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint"));
    }
    Ok(Discovery::LogicalDns(dns, targets, assignment))
}

/// Reads an assignment of names. Every endpoint gets a placeholder, unspecified and with its number as port, that
/// its addresses replace once they are known.
fn dns_targets(
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Vec<DnsTarget>, Assignment)> {
    let mut targets: Vec<DnsTarget> = Vec::new();
    let assignment = cx.field("load_assignment", |cx| {
        endpoints::read(
            assignment.unwrap_or_default(),
            &mut |address, cx| {
                let (name, port) = endpoints::dns_name(address, cx)?;
                let number = u16::try_from(targets.len()).map_err(|_| cx.error("too many endpoints"))?;
                let placeholder = Address::Ip(SocketAddr::from(([0, 0, 0, 0], number)));
                targets.push(DnsTarget {
                    placeholder: placeholder.clone(),
                    name: name.clone(),
                    port,
                });
                Ok((placeholder, Some(name)))
            },
            cx,
        )
    })?;
    Ok((targets, assignment))
}
