//! What the admin endpoints show of clusters: `/clusters` as text and as a message, and two parts of `/config_dump`.
//!
//! Only atomics and snapshots are read: no worker is asked anything.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use xds_protos::{
    envoy::r#type::v3::Percent,
    envoy::{
        admin::v3::{
            ClusterStatus, Clusters, ClustersConfigDump, EndpointsConfigDump, HostHealthStatus, HostStatus,
            SimpleMetric,
            clusters_config_dump::{DynamicCluster, StaticCluster},
            endpoints_config_dump::{DynamicEndpointConfig, StaticEndpointConfig},
            simple_metric,
        },
        config::{
            cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds},
            core::v3::{
                Address as ProtoAddress, EnvoyInternalAddress, HealthStatus, Locality as ProtoLocality,
                Metadata as ProtoMetadata, Pipe, RoutingPriority, SocketAddress, address::Address as Kind,
                envoy_internal_address::AddressNameSpecifier, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment::Policy,
                lb_endpoint::HostIdentifier,
            },
        },
    },
    google::protobuf as pb,
};

use super::{Cluster, ClusterInfo, ClusterSnapshot, HealthFlag, Host, HostStats, Locality, ResourcePriority};
use crate::{http::stream_info::Metadata, net::Address, server::ServerContext};

type Stat = (&'static str, fn(&HostStats) -> &AtomicU64);

const COUNTERS: [Stat; 6] = [
    ("cx_connect_fail", |s| &s.cx_connect_fail),
    ("cx_total", |s| &s.cx_total),
    ("rq_error", |s| &s.rq_error),
    ("rq_success", |s| &s.rq_success),
    ("rq_timeout", |s| &s.rq_timeout),
    ("rq_total", |s| &s.rq_total),
];

const GAUGES: [Stat; 3] = [
    ("cx_active", |s| &s.cx_active),
    ("rq_active", |s| &s.rq_active),
    ("rq_pending_active", |s| &s.rq_pending_active),
];

const PRIORITIES: [(ResourcePriority, &str); 2] =
    [(ResourcePriority::Default, "default"), (ResourcePriority::High, "high")];

/// `GET /clusters`
pub fn text(server: &ServerContext) -> String {
    let mut out = String::new();
    for cluster in server.clusters.active() {
        // Writing to a String cannot fail.
        let _ = cluster_text(&cluster, &mut out);
    }
    out
}

fn cluster_text(cluster: &Cluster, out: &mut String) -> std::fmt::Result {
    let info = &cluster.info;
    let name = &info.name;
    writeln!(out, "{name}::observability_name::{}", info.observability_name)?;
    if let Some(outlier) = &info.outlier {
        for (local, text) in [(false, ""), (true, "local_origin_")] {
            let (average, threshold) = outlier.compared_with(local);
            writeln!(out, "{name}::outlier::{text}success_rate_average::{average}")?;
            writeln!(
                out,
                "{name}::outlier::{text}success_rate_ejection_threshold::{threshold}"
            )?;
        }
    }
    for (priority, text) in PRIORITIES {
        let limits = info.resources(priority);
        writeln!(
            out,
            "{name}::{text}_priority::max_connections::{}",
            limits.connections.max()
        )?;
        writeln!(
            out,
            "{name}::{text}_priority::max_pending_requests::{}",
            limits.pending_requests.max()
        )?;
        writeln!(out, "{name}::{text}_priority::max_requests::{}", limits.requests.max())?;
        writeln!(out, "{name}::{text}_priority::max_retries::{}", limits.max_retries())?;
    }
    writeln!(out, "{name}::added_via_api::{}", info.added_via_api)?;
    if !info.eds_service_name.is_empty() {
        writeln!(out, "{name}::eds_service_name::{}", info.eds_service_name)?;
    }
    let mut stats: Vec<&Stat> = COUNTERS.iter().chain(&GAUGES).collect();
    stats.sort_by_key(|(name, _)| *name);
    for host in cluster.hosts.load().hosts() {
        let at = format!("{name}::{}", host.present_address());
        for (stat, value) in &stats {
            writeln!(out, "{at}::{stat}::{}", value(&host.stats).load(Relaxed))?;
        }
        let attributes = host.attributes();
        let Locality { region, zone, sub_zone } = &*attributes.locality;
        writeln!(out, "{at}::hostname::{}", host.hostname)?;
        writeln!(out, "{at}::health_flags::{}", host.health_text())?;
        writeln!(out, "{at}::weight::{}", host.weight())?;
        writeln!(out, "{at}::region::{region}")?;
        writeln!(out, "{at}::zone::{zone}")?;
        writeln!(out, "{at}::sub_zone::{sub_zone}")?;
        writeln!(out, "{at}::canary::{}", attributes.canary)?;
        writeln!(out, "{at}::priority::{}", attributes.priority)?;
        writeln!(out, "{at}::success_rate::{}", host.success_rate(false))?;
        writeln!(out, "{at}::local_origin_success_rate::{}", host.success_rate(true))?;
    }
    Ok(())
}

/// `GET /clusters?format=json`
pub fn clusters(server: &ServerContext) -> Clusters {
    Clusters {
        cluster_statuses: server.clusters.active().iter().map(|c| status(c)).collect(),
    }
}

fn status(cluster: &Cluster) -> ClusterStatus {
    let info = &cluster.info;
    ClusterStatus {
        name: info.name.to_string(),
        added_via_api: info.added_via_api,
        host_statuses: cluster.hosts.load().hosts().map(|h| host_status(h)).collect(),
        circuit_breakers: Some(breakers(info)),
        observability_name: info.observability_name.to_string(),
        eds_service_name: info.eds_service_name.to_string(),
        ..ClusterStatus::default()
    }
}

fn breakers(info: &ClusterInfo) -> CircuitBreakers {
    let limit = |max: u64| {
        Some(pb::UInt32Value {
            value: u32::try_from(max).unwrap_or(u32::MAX),
        })
    };
    CircuitBreakers {
        thresholds: PRIORITIES
            .iter()
            .map(|(priority, _)| {
                let limits = info.resources(*priority);
                Thresholds {
                    priority: match priority {
                        ResourcePriority::Default => RoutingPriority::Default as i32,
                        ResourcePriority::High => RoutingPriority::High as i32,
                    },
                    max_connections: limit(limits.connections.max()),
                    max_pending_requests: limit(limits.pending_requests.max()),
                    max_requests: limit(limits.requests.max()),
                    max_retries: limit(limits.max_retries()),
                    ..Thresholds::default()
                }
            })
            .collect(),
        ..CircuitBreakers::default()
    }
}

fn host_status(host: &Host) -> HostStatus {
    let attributes = host.attributes();
    let metric = |(name, value): &Stat, kind: simple_metric::Type| SimpleMetric {
        r#type: kind as i32,
        value: value(&host.stats).load(Relaxed),
        name: (*name).into(),
    };
    let counters = COUNTERS.iter().map(|s| metric(s, simple_metric::Type::Counter));
    let gauges = GAUGES.iter().map(|s| metric(s, simple_metric::Type::Gauge));
    HostStatus {
        address: Some(address(&host.present_address())),
        stats: counters.chain(gauges).collect(),
        health_status: Some(HostHealthStatus {
            failed_active_health_check: host.has_flag(HealthFlag::FailedActiveHc),
            failed_outlier_check: host.has_flag(HealthFlag::FailedOutlierCheck),
            failed_degraded_outlier_detection: host.has_flag(HealthFlag::DegradedOutlierDetection),
            failed_active_degraded_check: host.has_flag(HealthFlag::DegradedActiveHc),
            pending_dynamic_removal: host.has_flag(HealthFlag::PendingDynamicRemoval),
            pending_active_hc: host.has_flag(HealthFlag::PendingActiveHc),
            excluded_via_immediate_hc_fail: host.has_flag(HealthFlag::ExcludedViaImmediateHcFail),
            active_hc_timeout: host.has_flag(HealthFlag::ActiveHcTimeout),
            eds_health_status: eds_health(host) as i32,
        }),
        success_rate: rate(host, false),
        local_origin_success_rate: rate(host, true),
        weight: host.weight(),
        hostname: host.hostname.to_string(),
        priority: attributes.priority,
        locality: Some(locality(&attributes.locality)),
    }
}

/// A rate of success, where it is known.
fn rate(host: &Host, local: bool) -> Option<Percent> {
    let value = host.success_rate(local);
    (value >= 0.0).then_some(Percent { value })
}

fn eds_health(host: &Host) -> HealthStatus {
    if host.has_flag(HealthFlag::FailedEdsHealth) {
        HealthStatus::Unhealthy
    } else if host.has_flag(HealthFlag::EdsStatusDraining) {
        HealthStatus::Draining
    } else if host.has_flag(HealthFlag::DegradedEdsHealth) {
        HealthStatus::Degraded
    } else {
        HealthStatus::Healthy
    }
}

pub(super) fn locality(locality: &Locality) -> ProtoLocality {
    ProtoLocality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    }
}

pub(super) fn address(address: &Address) -> ProtoAddress {
    let kind = match address {
        Address::Ip(ip) => Kind::SocketAddress(SocketAddress {
            address: ip.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(ip.port().into())),
            ..SocketAddress::default()
        }),
        Address::Pipe(path) => Kind::Pipe(Pipe {
            path: path.to_string(),
            mode: 0,
        }),
        Address::Internal { listener, endpoint } => Kind::EnvoyInternalAddress(EnvoyInternalAddress {
            endpoint_id: endpoint.to_string(),
            address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener.to_string())),
        }),
    };
    ProtoAddress { address: Some(kind) }
}

/// The `ClustersConfigDump` of `/config_dump`; `version` is that of the last CDS update.
pub fn config_dump(server: &ServerContext, version: &str) -> ClustersConfigDump {
    let (active, warming) = server.clusters.snapshots();
    let dynamic = |all: &[ClusterSnapshot]| {
        all.iter()
            .filter(|s| !s.is_static)
            .map(|s| DynamicCluster {
                version_info: s.version.to_string(),
                cluster: Some(s.resource.clone()),
                last_updated: Some(timestamp(s.last_updated)),
                ..DynamicCluster::default()
            })
            .collect()
    };
    ClustersConfigDump {
        version_info: version.to_owned(),
        static_clusters: active
            .iter()
            .chain(&warming)
            .filter(|s| s.is_static)
            .map(|s| StaticCluster {
                cluster: Some(s.resource.clone()),
                last_updated: Some(timestamp(s.last_updated)),
            })
            .collect(),
        dynamic_active_clusters: dynamic(&active),
        dynamic_warming_clusters: dynamic(&warming),
    }
}

/// The `EndpointsConfigDump` of `/config_dump?include_eds`: those of clusters of a control plane are dynamic.
pub fn endpoints_dump(server: &ServerContext) -> EndpointsConfigDump {
    let mut out = EndpointsConfigDump::default();
    for cluster in server.clusters.active() {
        let any = Some(xds_protos::any::pack(&assignment(&cluster)));
        match cluster.info.added_via_api {
            false => out.static_endpoint_configs.push(StaticEndpointConfig {
                endpoint_config: any,
                ..StaticEndpointConfig::default()
            }),
            true => out.dynamic_endpoint_configs.push(DynamicEndpointConfig {
                endpoint_config: any,
                ..DynamicEndpointConfig::default()
            }),
        }
    }
    out
}

fn assignment(cluster: &Cluster) -> ClusterLoadAssignment {
    let sets = cluster.hosts.load();
    let info = &cluster.info;
    let mut endpoints = Vec::new();
    for (priority, set) in sets.priorities.iter().enumerate() {
        for group in &set.localities {
            endpoints.push(LocalityLbEndpoints {
                locality: Some(locality(&group.locality)),
                priority: u32::try_from(priority).unwrap_or(0),
                load_balancing_weight: Some(pb::UInt32Value { value: group.weight }),
                lb_endpoints: group.hosts.iter().map(lb_endpoint).collect(),
                ..LocalityLbEndpoints::default()
            });
        }
    }
    let name = match info.eds_service_name.is_empty() {
        true => &info.name,
        false => &info.eds_service_name,
    };
    ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints,
        policy: Some(Policy {
            overprovisioning_factor: Some(pb::UInt32Value {
                value: sets.priorities.first().map_or(140, |p| p.overprovisioning_factor),
            }),
            ..Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(host: &Arc<Host>) -> LbEndpoint {
    let attributes = host.attributes();
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(&host.present_address())),
            hostname: host.hostname.to_string(),
            health_check_config: Some(Default::default()),
            ..Endpoint::default()
        })),
        health_status: eds_health(host) as i32,
        metadata: metadata(&attributes.metadata),
        load_balancing_weight: Some(pb::UInt32Value { value: host.weight() }),
    }
}

/// Metadata as it was configured; none if it is empty.
pub(super) fn metadata(metadata: &Metadata) -> Option<ProtoMetadata> {
    (!metadata.is_empty()).then(|| ProtoMetadata {
        filter_metadata: metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..ProtoMetadata::default()
    })
}

pub(super) fn timestamp(at: SystemTime) -> pb::Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pb::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_millis() * 1_000_000).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
