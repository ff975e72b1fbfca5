//! STRICT_DNS, LOGICAL_DNS and `envoy.clusters.dns`: endpoints are names.

use std::{net::SocketAddr, time::Duration};

use xds_protos::{
    envoy::{
        config::{
            cluster::v3::cluster::{DnsLookupFamily, RefreshRate},
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::clusters::dns::v3::{DnsCluster, dns_cluster::RefreshRate as DnsRefreshRate},
    },
    google::protobuf as pb,
};

use super::{Discovery, Parts};
use crate::{
    config::{BuildCx, ConfigResult, DurationExt, unpack},
    net::Address,
    upstream::config::{Assignment, endpoints},
};

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

/// `type: STRICT_DNS`
pub(super) fn strict(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    all_addresses(parts.dns, parts.assignment, cx)
}

/// `type: LOGICAL_DNS`
pub(super) fn logical(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    single_endpoint(parts.dns, parts.assignment, cx)
}

/// `envoy.clusters.dns`
pub(super) fn typed(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    let assignment = parts.assignment;
    cx.field("cluster_type.typed_config", |cx| {
        let proto: DnsCluster = unpack(&parts.typed_config, cx)?;
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
            single_endpoint(dns, assignment, cx)
        } else {
            all_addresses(dns, assignment, cx)
        }
    })
}

fn all_addresses(
    dns: DnsOptions,
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    dns_targets(assignment, cx).map(|(targets, assignment)| Discovery::StrictDns(dns, targets, assignment))
}

fn single_endpoint(
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
