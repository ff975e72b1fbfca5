//! `ClusterLoadAssignment` to what the host store applies. The same for static clusters, EDS and DNS.

use std::{sync::Arc, time::Duration};

use xds_protos::envoy::config::{
    core::v3::{Address as ProtoAddress, HealthStatus, config_source::ConfigSourceSpecifier},
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LedsClusterLocalityConfig, LocalityLbEndpoints,
        cluster_load_assignment::{Policy, policy},
        endpoint::{AdditionalAddress, HealthCheckConfig},
        lb_endpoint::HostIdentifier,
        locality_lb_endpoints,
    },
};
use xds_protos::envoy::r#type::v3::{FractionalPercent as ProtoFraction, fractional_percent::DenominatorType};

use super::{metadata, no_metadata};
use crate::{
    config::{BuildCx, ConfigError, ConfigResult, DurationExt, FractionalPercent, fraction},
    net::{Address, address_from_proto},
    upstream::{HostAttributes, Locality, TransportMetadata, transport_metadata},
};

/// Highest priority Envoy accepts.
const MAX_PRIORITY: u32 = 128;

/// One endpoint as configured.
#[derive(Debug, Clone)]
pub struct EndpointSpec {
    /// Where; port 0 addresses of DNS clusters are replaced by what was resolved.
    pub address: Address,
    /// `Endpoint.hostname`, or the DNS name.
    pub hostname: String,
    /// `load_balancing_weight`, at least 1.
    pub weight: u32,
    /// `health_status`
    pub health: HealthStatus,
    /// Everything else.
    pub attributes: HostAttributes,
}

/// The endpoints of one locality and priority.
#[derive(Debug, Clone, Default)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Arc<Locality>,
    /// `priority`
    pub priority: u32,
    /// `load_balancing_weight`, 0 when unset.
    pub weight: u32,
    /// The endpoints.
    pub endpoints: Vec<EndpointSpec>,
}

/// `policy.drop_overloads`: a share of requests that is answered 503 before a host is picked.
#[derive(Debug, Clone, PartialEq)]
pub struct DropOverload {
    /// `drop_percentage`, which the runtime may lower.
    pub share: FractionalPercent,
    /// `category`: what load reports call them.
    pub category: Arc<str>,
}

/// A whole assignment.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// By locality, as they came.
    pub localities: Vec<LocalityEndpoints>,
    /// `policy.overprovisioning_factor` in percent, 140.
    pub overprovisioning_factor: u32,
    /// `policy.weighted_priority_health`
    pub weighted_priority_health: bool,
    /// `policy.drop_overloads`
    pub drop_overload: Option<DropOverload>,
    /// `policy.endpoint_stale_after`: without another assignment until then, there are no endpoints.
    pub stale_after: Option<Duration>,
}

impl Default for Assignment {
    fn default() -> Self {
        Self {
            localities: Vec::new(),
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            drop_overload: None,
            stale_after: None,
        }
    }
}

/// How an endpoint's address becomes an [`Address`]: literally, or (DNS) as a name kept for later.
pub type ReadAddress<'r> = &'r mut dyn FnMut(ProtoAddress, &mut BuildCx<'_>) -> ConfigResult<(Address, Option<String>)>;

/// Reads an assignment whose addresses are literal.
pub fn from_assignment(proto: ClusterLoadAssignment, cx: &mut BuildCx<'_>) -> ConfigResult<Assignment> {
    read(
        proto,
        &mut |address, cx| Ok((address_from_proto(address, cx)?, None)),
        cx,
    )
}

/// Reads an assignment; `address` turns an endpoint's address into one to connect to, and a host name if it has one.
pub fn read(proto: ClusterLoadAssignment, address: ReadAddress<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Assignment> {
    coverage!(cx, proto => ClusterLoadAssignment {
        supported { cluster_name, endpoints, policy }
        ignored { named_endpoints: "Envoy does not use them either" }
    });
    let _ = cluster_name;
    let mut out = Assignment::default();
    if let Some(policy) = policy {
        cx.field("policy", |cx| read_policy(policy, &mut out, cx))?;
    }
    out.localities = cx.each("endpoints", endpoints, |proto, cx| locality(proto, address, cx))?;
    Ok(out)
}

fn read_policy(proto: Policy, out: &mut Assignment, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    coverage!(cx, proto => Policy {
        supported { drop_overloads, overprovisioning_factor, weighted_priority_health, endpoint_stale_after }
    });
    out.stale_after = endpoint_stale_after.enabled_or(Duration::ZERO);
    if let Some(factor) = overprovisioning_factor {
        out.overprovisioning_factor = factor.value;
    }
    out.weighted_priority_health = weighted_priority_health;
    out.drop_overload = drop_overload(drop_overloads, cx)?;
    Ok(())
}

fn drop_overload(all: Vec<policy::DropOverload>, cx: &BuildCx<'_>) -> ConfigResult<Option<DropOverload>> {
    if all.len() > 1 {
        return Err(cx.error(format!(
            "Cluster drop_overloads config has {} categories. Envoy only support one.",
            all.len()
        )));
    }
    let Some(policy::DropOverload {
        category,
        drop_percentage,
    }) = all.into_iter().next()
    else {
        return Ok(None);
    };
    let share = drop_percentage.as_ref().map_or(0, |p| fraction(p).millionths());
    if drop_percentage.is_some_and(|p| above_all(&p)) {
        return Err(cx.error("Cluster drop_overloads config is invalid. The valid range is 0~1."));
    }
    let limit = cx.server.runtime.known.drop_overload_limit.integer(100);
    if limit > 100 {
        return Err(cx.error(format!(
            "load_balancing_policy.drop_overload_limit runtime key config {limit} is invalid. The valid range is 0~100"
        )));
    }
    let limit = u32::try_from(limit * 10_000).unwrap_or(1_000_000);
    Ok(Some(DropOverload {
        share: FractionalPercent::from_millionths(share.min(limit)),
        category: category.into(),
    }))
}

/// Whether it is more than all; reading it as a fraction would make it all.
fn above_all(proto: &ProtoFraction) -> bool {
    let all = match DenominatorType::try_from(proto.denominator) {
        Ok(DenominatorType::Hundred) | Err(_) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
    };
    proto.numerator > all
}

fn locality(
    proto: LocalityLbEndpoints,
    address: ReadAddress<'_>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<LocalityEndpoints> {
    coverage!(cx, proto => LocalityLbEndpoints {
        supported { locality, metadata, lb_endpoints, load_balancing_weight, priority, lb_config }
        ignored { proximity: "Envoy does not use it either" }
    });
    if priority > MAX_PRIORITY {
        return Err(cx.error_at("priority", "value must be less than or equal to 128"));
    }
    let lb_endpoints = match lb_config {
        Some(locality_lb_endpoints::LbConfig::LoadBalancerEndpoints(list)) => list.lb_endpoints,
        Some(locality_lb_endpoints::LbConfig::LedsClusterLocalityConfig(leds)) => {
            return Err(leds_refused(&leds, lb_endpoints.is_empty(), cx));
        }
        None => lb_endpoints,
    };
    // As in Envoy, a weight belongs to a locality that is named.
    let weight = load_balancing_weight
        .filter(|_| locality.is_some())
        .map_or(0, |v| v.value);
    let localities = &cx.server.clusters.common.localities;
    let place = localities.share(Locality::of(locality.as_ref()));
    let locality_proxy = transport_metadata::proxy(metadata.as_ref(), cx);
    let locality_metadata = metadata.map_or_else(no_metadata, |m| Arc::new(self::metadata(m)));
    let endpoints = cx.each("lb_endpoints", lb_endpoints, |proto, cx| {
        let mut spec = endpoint(proto, address, cx)?;
        spec.attributes.locality = place.clone();
        spec.attributes.locality_metadata = locality_metadata.clone();
        if let Some(proxy) = &locality_proxy {
            let transport = spec.attributes.transport.take().map(Arc::unwrap_or_clone);
            let mut transport = transport.unwrap_or_default();
            transport.proxy.get_or_insert_with(|| proxy.clone());
            spec.attributes.transport = Some(Arc::new(transport));
        }
        spec.attributes.priority = priority;
        Ok(spec)
    })?;
    Ok(LocalityEndpoints {
        locality: place,
        priority,
        weight,
        endpoints,
    })
}

/// Why endpoints of LEDS are not taken: Envoy's reasons first.
fn leds_refused(leds: &LedsClusterLocalityConfig, alone: bool, cx: &BuildCx<'_>) -> ConfigError {
    if !alone {
        return cx.error(format!(
            "A ClusterLoadAssignment cannot include both LEDS (resource: {}) and a list of endpoints.",
            leds.leds_collection_name
        ));
    }
    let source = leds
        .leds_config
        .as_ref()
        .and_then(|c| c.config_source_specifier.as_ref());
    match source {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::ApiConfigSource(_)) => {
            cx.error_at("leds_cluster_locality_config", "not supported: LEDS")
        }
        _ => cx.error(
            "Missing or not supported config source specifier in envoy::config::core::v3::ConfigSource for a \
             collection. Only ADS and gRPC in delta-xDS mode are supported.",
        ),
    }
}

fn endpoint(proto: LbEndpoint, address: ReadAddress<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<EndpointSpec> {
    coverage!(cx, proto => LbEndpoint {
        supported { health_status, metadata, load_balancing_weight, host_identifier }
    });
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        // Envoy has none of them either.
        Some(HostIdentifier::EndpointName(_)) => return Err(cx.error("Address must be set")),
        None => return Err(cx.error_at("endpoint", "value is required")),
    };
    let transport = TransportMetadata::read(metadata.as_ref(), cx);
    let metadata = metadata.map_or_else(no_metadata, |m| Arc::new(self::metadata(m)));
    let canary = metadata
        .get("envoy.lb")
        .and_then(|s| s.fields.get("canary"))
        .is_some_and(|v| v.kind == Some(xds_protos::google::protobuf::value::Kind::BoolValue(true)));
    let mut spec = cx.field("endpoint", |cx| read_endpoint(endpoint, address, cx))?;
    spec.weight = load_balancing_weight.map_or(1, |v| v.value.max(1));
    spec.health = HealthStatus::try_from(health_status).unwrap_or(HealthStatus::Unknown);
    spec.attributes.metadata = metadata;
    spec.attributes.canary = canary;
    spec.attributes.transport = transport.map(Arc::new);
    Ok(spec)
}

fn read_endpoint(proto: Endpoint, address_of: ReadAddress<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<EndpointSpec> {
    coverage!(cx, proto => Endpoint {
        supported { address, health_check_config, hostname, additional_addresses }
        ignored { observability_name: "hosts are shown by their address" }
    });
    let (address, resolved_name) = cx.required("address", address, &mut *address_of)?;
    let mut attributes = HostAttributes::default();
    for AdditionalAddress { address } in additional_addresses {
        let (additional, _) = cx.required("additional_addresses", address, &mut *address_of)?;
        attributes.additional_addresses.push(additional);
    }
    if let Some(config) = health_check_config {
        cx.field("health_check_config", |cx| {
            let HealthCheckConfig {
                port_value,
                hostname,
                address: check_address,
                disable_active_health_check,
            } = config;
            attributes.health_check_disabled = disable_active_health_check;
            attributes.health_check_hostname = hostname;
            attributes.health_check_address = match check_address {
                Some(a) => Some(cx.field("address", |cx| address_from_proto(a, cx))?),
                None => with_port(&address, port_value),
            };
            Ok(())
        })?;
    }
    Ok(EndpointSpec {
        address,
        hostname: match hostname.is_empty() {
            true => resolved_name.unwrap_or_default(),
            false => hostname,
        },
        weight: 1,
        health: HealthStatus::Unknown,
        attributes,
    })
}

fn with_port(address: &Address, port: u32) -> Option<Address> {
    match (address, u16::try_from(port)) {
        (Address::Ip(a), Ok(port)) if port > 0 => Some(Address::Ip(std::net::SocketAddr::new(a.ip(), port))),
        _ => None,
    }
}
