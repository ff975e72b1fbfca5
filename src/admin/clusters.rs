//! `/clusters`: the hosts of every cluster, in text and JSON.

use std::{fmt::Write, sync::atomic::Ordering::Relaxed};

use xds_protos::envoy::{
    admin::v3::{ClusterStatus, Clusters, HostHealthStatus, HostStatus, SimpleMetric, simple_metric},
    config::{
        cluster::v3::{CircuitBreakers, circuit_breakers::Thresholds},
        core::v3::{HealthStatus, Locality as ProtoLocality, RoutingPriority},
    },
};
use xds_protos::google::protobuf::UInt32Value;

use super::{AdminRequest, Reply, config_dump::to_json};
use crate::upstream::{Cluster, Health, HealthFlag, Host, ResourcePriority};

/// `/clusters?format=json&filter=REGEX`
pub(super) fn clusters(request: &AdminRequest) -> Reply {
    let filter = match request
        .param("filter")
        .filter(|f| !f.is_empty())
        .map(|f| regex::Regex::new(&f))
        .transpose()
    {
        Ok(filter) => filter,
        Err(_) => return Reply::error(http::StatusCode::BAD_REQUEST, "Invalid re2 regex"),
    };
    let mut active = request.server.clusters.active();
    active.retain(|c| filter.as_ref().is_none_or(|f| f.is_match(&c.info.name)));
    if request.param("format").as_deref() == Some("json") {
        let statuses = active.iter().map(|c| status(c)).collect();
        return Reply::json(
            to_json(&Clusters {
                cluster_statuses: statuses,
            }) + "\n",
        );
    }
    let mut out = String::new();
    for cluster in &active {
        text(cluster, &mut out);
    }
    Reply::text(out)
}

fn counters(host: &Host) -> [(&'static str, u64, bool); 9] {
    let s = &host.stats;
    [
        ("cx_active", s.cx_active.load(Relaxed), true),
        ("cx_connect_fail", s.cx_connect_fail.load(Relaxed), false),
        ("cx_total", s.cx_total.load(Relaxed), false),
        ("rq_active", s.rq_active.load(Relaxed), true),
        ("rq_error", s.rq_error.load(Relaxed), false),
        ("rq_pending_active", s.rq_pending_active.load(Relaxed), true),
        ("rq_success", s.rq_success.load(Relaxed), false),
        ("rq_timeout", s.rq_timeout.load(Relaxed), false),
        ("rq_total", s.rq_total.load(Relaxed), false),
    ]
}

fn text(cluster: &Cluster, out: &mut String) {
    let name = &cluster.info.name;
    // Writing to a String cannot fail.
    let mut line = |rest: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{name}::{rest}");
    };
    line(format_args!("observability_name::{}", cluster.info.observability_name));
    for (label, priority) in [("default", ResourcePriority::Default), ("high", ResourcePriority::High)] {
        let limits = cluster.info.resources(priority);
        line(format_args!(
            "{label}_priority::max_connections::{}",
            limits.connections.max()
        ));
        line(format_args!(
            "{label}_priority::max_pending_requests::{}",
            limits.pending_requests.max()
        ));
        line(format_args!(
            "{label}_priority::max_requests::{}",
            limits.requests.max()
        ));
        line(format_args!("{label}_priority::max_retries::{}", limits.retries.max()));
    }
    line(format_args!("added_via_api::{}", cluster.info.added_via_api));
    for host in cluster.hosts.load().hosts() {
        let address = &host.address;
        for (counter, value, _) in counters(host) {
            line(format_args!("{address}::{counter}::{value}"));
        }
        let attributes = host.attributes();
        line(format_args!("{address}::hostname::{}", host.hostname));
        line(format_args!("{address}::health_flags::{}", host.health_text()));
        line(format_args!("{address}::weight::{}", host.weight()));
        line(format_args!("{address}::region::{}", attributes.locality.region));
        line(format_args!("{address}::zone::{}", attributes.locality.zone));
        line(format_args!("{address}::sub_zone::{}", attributes.locality.sub_zone));
        line(format_args!("{address}::canary::{}", attributes.canary));
        line(format_args!("{address}::priority::{}", attributes.priority));
        line(format_args!("{address}::success_rate::-1"));
        line(format_args!("{address}::local_origin_success_rate::-1"));
    }
}

fn status(cluster: &Cluster) -> ClusterStatus {
    let thresholds = [
        (RoutingPriority::Default, ResourcePriority::Default),
        (RoutingPriority::High, ResourcePriority::High),
    ]
    .into_iter()
    .map(|(shown, priority)| {
        let limits = cluster.info.resources(priority);
        let number = |n: u64| {
            Some(UInt32Value {
                value: u32::try_from(n).unwrap_or(u32::MAX),
            })
        };
        Thresholds {
            priority: shown as i32,
            max_connections: number(limits.connections.max()),
            max_pending_requests: number(limits.pending_requests.max()),
            max_requests: number(limits.requests.max()),
            max_retries: number(limits.retries.max()),
            ..Default::default()
        }
    })
    .collect();
    ClusterStatus {
        name: cluster.info.name.to_string(),
        added_via_api: cluster.info.added_via_api,
        host_statuses: cluster.hosts.load().hosts().map(|h| host_status(h)).collect(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds,
            ..Default::default()
        }),
        observability_name: cluster.info.observability_name.to_string(),
        ..Default::default()
    }
}

fn host_status(host: &Host) -> HostStatus {
    let attributes = host.attributes();
    let (gauges, counts): (Vec<_>, Vec<_>) = counters(host).into_iter().partition(|(_, _, gauge)| *gauge);
    let stats = counts
        .into_iter()
        .chain(gauges)
        .map(|(name, value, gauge)| SimpleMetric {
            r#type: if gauge {
                simple_metric::Type::Gauge
            } else {
                simple_metric::Type::Counter
            } as i32,
            value,
            name: name.to_owned(),
        })
        .collect();
    let eds = match host.health() {
        Health::Healthy => HealthStatus::Healthy,
        Health::Degraded => HealthStatus::Degraded,
        Health::Unhealthy => HealthStatus::Unhealthy,
    };
    HostStatus {
        address: Some(super::config_dump::address(&host.address)),
        stats,
        health_status: Some(HostHealthStatus {
            failed_active_health_check: host.has_flag(HealthFlag::FailedActiveHc),
            failed_outlier_check: host.has_flag(HealthFlag::FailedOutlierCheck),
            eds_health_status: eds as i32,
            ..Default::default()
        }),
        weight: host.weight(),
        hostname: host.hostname.to_string(),
        priority: attributes.priority,
        locality: Some(ProtoLocality {
            region: attributes.locality.region.clone(),
            zone: attributes.locality.zone.clone(),
            sub_zone: attributes.locality.sub_zone.clone(),
        }),
        ..Default::default()
    }
}
