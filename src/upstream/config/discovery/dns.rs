//! STRICT_DNS, LOGICAL_DNS and `envoy.clusters.dns`: endpoints are names.

use std::{net::SocketAddr, time::Duration};

use xds_protos::{
    envoy::{
        config::{
            cluster::v3::cluster::RefreshRate,
            core::v3::{
                Address as ProtoAddress, DnsResolutionConfig, SocketAddress, TypedExtensionConfig,
                address::Address as Kind, socket_address::PortSpecifier,
            },
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
    upstream::{
        config::{Assignment, endpoints},
        dns::{DnsFamily, DnsResolver},
    },
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

/// The fields of `Cluster` on DNS, as they came.
#[derive(Default)]
pub struct DnsFields {
    /// `dns_refresh_rate`
    pub refresh: Option<pb::Duration>,
    /// `dns_failure_refresh_rate`
    pub failure: Option<RefreshRate>,
    /// `dns_jitter`
    pub jitter: Option<pb::Duration>,
    /// `respect_dns_ttl`
    pub respect_ttl: bool,
    /// `dns_lookup_family`
    pub family: i32,
    /// `typed_dns_resolver_config`
    pub typed_resolver: Option<TypedExtensionConfig>,
    /// `dns_resolution_config`
    pub untyped_resolver: Option<DnsResolutionConfig>,
    /// `dns_resolvers`
    pub servers: Vec<ProtoAddress>,
    /// `use_tcp_for_dns_lookups`
    pub over_tcp: bool,
    /// `wait_for_warm_on_init`
    pub wait: bool,
}

/// How names are resolved.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Who resolves them.
    pub resolver: DnsResolver,
    /// `dns_refresh_rate`, 5 s
    pub refresh: Duration,
    /// `dns_failure_refresh_rate`: base and maximum; the refresh rate without it.
    pub failure: Option<(Duration, Duration)>,
    /// `dns_jitter`: added at random.
    pub jitter: Duration,
    /// `respect_dns_ttl`
    pub respect_ttl: bool,
    /// `dns_min_refresh_rate`: answers that hold for a shorter time are asked for at this rate.
    pub min_refresh: Duration,
    /// `dns_lookup_family`
    pub family: DnsFamily,
    /// `wait_for_warm_on_init`: the cluster is not warm before the first name is resolved.
    pub wait: bool,
}

const DEFAULT_REFRESH: Duration = Duration::from_secs(5);

impl DnsFields {
    fn build(self, cx: &mut BuildCx<'_>) -> ConfigResult<DnsOptions> {
        let Self {
            refresh,
            failure,
            jitter,
            respect_ttl,
            family,
            typed_resolver,
            untyped_resolver,
            servers,
            over_tcp,
            wait,
        } = self;
        let failure = failure.map(
            |RefreshRate {
                 base_interval,
                 max_interval,
             }| (base_interval, max_interval),
        );
        Ok(DnsOptions {
            resolver: DnsResolver::choose(typed_resolver, untyped_resolver, servers, over_tcp, cx)?,
            refresh: refresh.or_duration(DEFAULT_REFRESH),
            failure: checked(failure, cx)?,
            jitter: jitter.or_duration(Duration::ZERO),
            respect_ttl,
            min_refresh: Duration::ZERO,
            family: DnsFamily::from_proto(family),
            wait,
        })
    }
}

/// `dns_failure_refresh_rate` as base and maximum; the maximum is ten times the base when unset.
pub fn failure_rates(rates: Rates) -> Option<(Duration, Duration)> {
    let (base, max) = rates?;
    let base = base.or_duration(DEFAULT_REFRESH);
    Some((base, max.or_duration(base * 10)))
}

type Rates = Option<(Option<pb::Duration>, Option<pb::Duration>)>;

/// The same, of clusters: the maximum must not be below the base.
fn checked(rates: Rates, cx: &BuildCx<'_>) -> ConfigResult<Option<(Duration, Duration)>> {
    let rates = failure_rates(rates);
    if rates.is_some_and(|(base, max)| max < base) {
        return Err(
            cx.error("dns_failure_refresh_rate must have max_interval greater than or equal to the base_interval")
        );
    }
    Ok(rates)
}

/// `type: STRICT_DNS`
pub(super) fn strict(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    let dns = parts.dns.build(cx)?;
    all_addresses(dns, parts.assignment, cx)
}

/// `type: LOGICAL_DNS`
pub(super) fn logical(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    let dns = parts.dns.build(cx)?;
    single_endpoint(dns, parts.assignment, cx)
}

/// `envoy.clusters.dns`
pub(super) fn typed(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    let assignment = parts.assignment;
    cx.field("cluster_type.typed_config", |cx| {
        let proto: DnsCluster = unpack(&parts.typed_config, cx)?;
        let (dns, single) = options(proto, parts.dns.wait, cx)?;
        match single {
            true => single_endpoint(dns, assignment, cx),
            false => all_addresses(dns, assignment, cx),
        }
    })
}

/// What a `DnsCluster` says, and whether all addresses are one endpoint's.
pub fn options(proto: DnsCluster, wait: bool, cx: &mut BuildCx<'_>) -> ConfigResult<(DnsOptions, bool)> {
    coverage!(cx, proto => DnsCluster {
        supported {
            dns_refresh_rate, dns_failure_refresh_rate, respect_dns_ttl, dns_jitter, dns_lookup_family,
            all_addresses_in_single_endpoint, typed_dns_resolver_config, dns_min_refresh_rate
        }
    });
    let fields = DnsFields {
        refresh: dns_refresh_rate,
        jitter: dns_jitter,
        respect_ttl: respect_dns_ttl,
        // Its enum starts with UNSPECIFIED, one before the cluster's.
        family: (dns_lookup_family - 1).max(0),
        typed_resolver: typed_dns_resolver_config,
        wait,
        ..DnsFields::default()
    };
    let mut dns = fields.build(cx)?;
    let failure = dns_failure_refresh_rate.map(
        |DnsRefreshRate {
             base_interval,
             max_interval,
         }| (base_interval, max_interval),
    );
    dns.failure = checked(failure, cx)?;
    dns.min_refresh = dns_min_refresh_rate.or_duration(Duration::ZERO);
    Ok((dns, all_addresses_in_single_endpoint))
}

fn all_addresses(
    dns: DnsOptions,
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    dns_targets("STRICT_DNS", assignment, cx)
        .map(|(targets, assignment)| Discovery::StrictDns(dns, targets, assignment))
}

fn single_endpoint(
    dns: DnsOptions,
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    if assignment.is_none() {
        return Err(cx.error("LOGICAL_DNS clusters must have a single host"));
    }
    let (targets, mut assignment) = dns_targets("LOGICAL_DNS", assignment, cx)?;
    if targets.len() != 1 || assignment.localities.len() != 1 {
        return Err(cx.error("LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint"));
    }
    // The only host is of the first priority, whatever is said.
    for locality in &mut assignment.localities {
        locality.priority = 0;
        for endpoint in &mut locality.endpoints {
            endpoint.attributes.priority = 0;
        }
    }
    Ok(Discovery::LogicalDns(dns, targets, assignment))
}

/// Reads an assignment of names. Every endpoint gets a placeholder, unspecified and with its number as port, that
/// its addresses replace once they are known.
fn dns_targets(
    of_type: &str,
    assignment: Option<ClusterLoadAssignment>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Vec<DnsTarget>, Assignment)> {
    let mut targets: Vec<DnsTarget> = Vec::new();
    let assignment = cx.field("load_assignment", |cx| {
        endpoints::read(
            assignment.unwrap_or_default(),
            &mut |address, cx| {
                let (name, port) = name_and_port(of_type, address, cx)?;
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

/// The name and port of an endpoint.
fn name_and_port(of_type: &str, proto: ProtoAddress, cx: &mut BuildCx<'_>) -> ConfigResult<(String, u16)> {
    let Some(Kind::SocketAddress(proto)) = proto.address else {
        // No name at all, which never resolves, as in Envoy.
        return Ok((String::new(), 0));
    };
    coverage!(cx, proto => SocketAddress {
        supported { address, port_specifier, resolver_name }
        ignored {
            protocol: "HTTP/3 upstreams are not built in; connections are of TCP",
            ipv4_compat: "it means something for listeners alone"
        }
        rejected { network_namespace_filepath: "network namespaces" }
    });
    if !resolver_name.is_empty() {
        return Err(cx.error(format!("{of_type} clusters must NOT have a custom resolver name set")));
    }
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => port,
        _ => 0,
    };
    let port =
        u16::try_from(port).map_err(|_| cx.error_at("port_value", "value must be less than or equal to 65535"))?;
    Ok((address, port))
}
