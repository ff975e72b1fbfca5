//! `envoy.config.cluster.v3.Cluster` to [`ClusterInfo`] and to where its endpoints come from.

mod circuit;
mod connection;
mod discovery;
mod endpoints;
mod http_filters;
mod lb;
mod policies;
mod preconnect;
mod protocol;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use xds_protos::{
    envoy::config::{
        cluster::v3::{CircuitBreakers as CircuitBreakersProto, Cluster as Proto, cluster::ClusterDiscoveryType},
        core::v3::{Metadata as ProtoMetadata, TypedExtensionConfig, UpstreamHttpProtocolOptions},
    },
    google::protobuf::Any,
};

use super::{
    ClusterInfo, HealthCheckConfig, HostAttributes, Locality, OptionalStats, OutlierDetector, TransportSockets,
    UpstreamNetworkFilters,
    circuit::{CircuitBreakers, Limits},
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, Recent, Shared},
    http::stream_info::Metadata,
    server::overload::Point,
};

pub use connection::{AddressOrder, ConnectOptions, Source};
pub use discovery::{Discovery, DnsFields, DnsOptions, DnsTarget, EdsOptions, failure_rates};
pub use endpoints::{Assignment, DropOverload, EndpointSpec, LocalityEndpoints, from_assignment};
pub use http_filters::{UpstreamHttpFilter, UpstreamHttpFilters, http_filter_chain};
pub use lb::{
    ClientSideWrr, Criteria, HashFunction, Hashing, LbConfig, LbPolicy, LeastRequest, LocalityLb, Maglev,
    OverrideHosts, RingHash, SelectorFallback, SlowStart, SubsetConfig, SubsetFallback, SubsetSelector, ZoneAware,
};
pub use policies::RequestPolicies;
pub use preconnect::Preconnect;
pub use protocol::{Http1Options, Http2Options, HttpOptions, HttpProtocol};

/// What clusters share that say the same.
#[derive(Default)]
pub struct Common {
    http: Shared<protocol::Parts, HttpOptions>,
    lb: Shared<lb::Parts, LbConfig>,
    connect: Shared<connection::Parts, ConnectOptions>,
    limits: Shared<Option<CircuitBreakersProto>, [Limits; 2]>,
    localities: Recent<Locality>,
    pub(super) attributes: Recent<HostAttributes>,
}

/// What one `Cluster` message says.
pub struct ClusterConfig {
    /// For workers.
    pub info: ClusterInfo,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// `health_checks`
    pub health_check: Option<HealthCheckConfig>,
    /// `wait_for_warm_on_init`
    pub wait_for_warm_on_init: bool,
}

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Unused original destinations go after so long.
const DEFAULT_CLEANUP: Duration = Duration::from_secs(5);
const DEFAULT_BUFFER_LIMIT: u32 = 1 << 20;

/// Builds a cluster. Nothing is started yet; secrets by SDS become init targets of `cx`.
pub fn build(proto: Proto, added_via_api: bool, cx: &mut BuildCx<'_>) -> ConfigResult<ClusterConfig> {
    let by_name = match &proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            discovery::is_dynamic_forward_proxy(custom.typed_config.as_ref())
        }
        _ => false,
    };
    let template = by_name.then(|| Box::new(proto.clone()));
    coverage!(cx, proto => Proto {
        supported {
            name, alt_stat_name, eds_cluster_config, connect_timeout, per_connection_buffer_limit_bytes, lb_policy,
            load_assignment, max_requests_per_connection, circuit_breakers, upstream_http_protocol_options,
            common_http_protocol_options, http_protocol_options, http2_protocol_options,
            typed_extension_protocol_options, dns_refresh_rate, dns_jitter, dns_failure_refresh_rate, respect_dns_ttl,
            dns_lookup_family, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
            typed_dns_resolver_config, wait_for_warm_on_init, upstream_bind_config, common_lb_config, transport_socket,
            transport_socket_matches, transport_socket_matcher, metadata, protocol_selection, upstream_connection_options,
            load_balancing_policy, cluster_discovery_type, lb_config, filters, upstream_config, outlier_detection, track_timeout_budgets,
            track_cluster_stats, health_checks, lb_subset_config, ignore_health_on_host_removal,
            cleanup_interval, close_connections_on_host_health_failure, preconnect_policy,
            connection_pool_per_downstream_connection
        }
        ignored {
            stats_matcher: "the statistics of a cluster are all kept",
            per_connection_buffer_high_watermark_timeout: "a full buffer stops reading without a time limit",
            lrs_server: "load is not reported",
            lrs_report_endpoint_metrics: "load is not reported",
            queuing_policies: "the pending queue is first in, first out"
        }
    });
    if name.is_empty() {
        return Err(cx.error_at("name", "value length must be at least 1 characters"));
    }
    check_upstream_config(upstream_config, cx)?;
    let network_filters = UpstreamNetworkFilters::build(filters, cx)?;

    let legacy = protocol::Legacy {
        selection: protocol_selection,
        // Hosts that requests name are asked for by their names, and must have certificates of them.
        upstream: upstream_http_protocol_options.or_else(|| {
            by_name.then(|| UpstreamHttpProtocolOptions {
                auto_sni: true,
                auto_san_validation: true,
                ..Default::default()
            })
        }),
        common: common_http_protocol_options,
        http1: http_protocol_options,
        http2: http2_protocol_options,
        max_requests_per_connection,
    };
    let common = &cx.server.clusters.common;
    let http = common.http.get_or_build(
        (typed_extension_protocol_options, legacy),
        cx,
        |options| options.filters.is_empty(),
        |(extensions, legacy), cx| protocol::build(extensions, legacy, cx),
    )?;
    let close_on_host_set_change = common_lb_config
        .as_ref()
        .is_some_and(|c| c.close_connections_on_host_set_change);
    if load_balancing_policy.is_some() && lb_subset_config.is_some() {
        return Err(cx.error("cluster: load_balancing_policy cannot be combined with lb_subset_config"));
    }
    let balancing = lb::Parts {
        policy: lb_policy,
        config: lb_config,
        policies: load_balancing_policy,
        common: common_lb_config,
        subsets: lb_subset_config,
    };
    let lb = common
        .lb
        .get_or_build(balancing, cx, |_| true, |parts, cx| lb::build(parts, &name, cx))?;
    let connect = common.connect.get_or_build(
        (upstream_connection_options, upstream_bind_config),
        cx,
        |_| true,
        |(options, bind), cx| connection::build(&name, options, bind, cx),
    )?;
    let dns = DnsFields {
        refresh: dns_refresh_rate,
        failure: dns_failure_refresh_rate,
        jitter: dns_jitter,
        respect_ttl: respect_dns_ttl,
        family: dns_lookup_family,
        typed_resolver: typed_dns_resolver_config,
        untyped_resolver: dns_resolution_config,
        servers: dns_resolvers,
        over_tcp: use_tcp_for_dns_lookups,
        wait: wait_for_warm_on_init.is_none_or(|v| v.value),
    };
    let discovery_type = cluster_discovery_type.unwrap_or(ClusterDiscoveryType::Type(0));
    let parts = discovery::Parts {
        cluster: &name,
        eds: eds_cluster_config,
        assignment: load_assignment,
        dns,
        original_dst: lb.original_dst.clone(),
        cleanup_interval: cleanup_interval.or_duration(DEFAULT_CLEANUP),
        lb_provided: matches!(lb.policy, LbPolicy::ClusterProvided),
        names_checked: http.auto_sni && http.auto_san_validation,
        template,
        typed_config: Any::default(),
    };
    let discovery = discovery::build(discovery_type, parts, cx)?;

    if lb.needs_hostnames
        && let Some(of_type) = discovery.without_hostnames()
    {
        return Err(cx.error(format!(
            "Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.{of_type}'"
        )));
    }
    let name: Arc<str> = name.into();
    let observability_name = match alt_stat_name.is_empty() {
        true => name.clone(),
        false => alt_stat_name.into(),
    };
    let scope = cx.server.stats.scope(&format!("cluster.{observability_name}."));
    let sockets = TransportSockets::build(
        transport_socket,
        transport_socket_matches,
        transport_socket_matcher,
        &scope,
        cx,
    )?;
    if http.protocol == HttpProtocol::Auto && !sockets.all_support_alpn() {
        return Err(cx.error(format!(
            "ALPN configured for cluster {name} which has a non-ALPN transport socket"
        )));
    }
    let stats = scope.block();
    let limits = common
        .limits
        .get_or_build(circuit_breakers, cx, |_| true, circuit::build)?;
    let resources = CircuitBreakers::new(limits, &stats, &scope);
    let outlier = cx.opt("outlier_detection", outlier_detection, |o, cx| {
        OutlierDetector::build(o, &scope, cx).map(Box::new)
    })?;
    let health_check = HealthCheckConfig::build(health_checks, cx)?;
    if health_check.as_ref().is_some_and(HealthCheckConfig::is_grpc) && http.protocol == protocol::HttpProtocol::Http1 {
        let needed = "cluster must support HTTP/2 for gRPC healthchecking";
        return Err(cx.error_at("health_checks", format!("{name} {needed}")));
    }
    let info = ClusterInfo {
        overload: cx
            .server
            .overload()
            .filter(|o| o.has(Point::PoolNewConnection))
            .cloned(),
        close_on_host_set_change,
        close_on_health_failure: close_connections_on_host_health_failure,
        pool_per_downstream: connection_pool_per_downstream_connection,
        preconnect: cx
            .opt("preconnect_policy", preconnect_policy, Preconnect::build)?
            .unwrap_or_default(),
        ignore_health_on_host_removal,
        outlier,
        codes: scope.codes(""),
        retry_codes: scope.codes("retry."),
        membership: scope.block(),
        optional_stats: cx.field("track_cluster_stats", |cx| {
            OptionalStats::build(track_cluster_stats, track_timeout_budgets, &scope, cx)
        })?,
        stats,
        connect_timeout: connect_timeout
            .enabled_or(DEFAULT_CONNECT_TIMEOUT)
            .unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        per_connection_buffer_limit: per_connection_buffer_limit_bytes.map_or(DEFAULT_BUFFER_LIMIT, |v| v.value),
        metadata: metadata.map_or_else(no_metadata, |m| Arc::new(self::metadata(m))),
        added_via_api,
        http,
        connect,
        network_filters,
        sockets,
        lb,
        drops: Default::default(),
        resources,
        eds_service_name: match &discovery {
            Discovery::Eds(eds) => eds.service_name.as_str().into(),
            _ => Arc::default(),
        },
        provided: discovery.provided(),
        observability_name,
        name,
        scope,
    };
    Ok(ClusterConfig {
        info,
        health_check,
        discovery,
        wait_for_warm_on_init: wait_for_warm_on_init.is_none_or(|v| v.value),
    })
}

/// `upstream_config`: the generic HTTP upstream is what is built in.
fn check_upstream_config(config: Option<TypedExtensionConfig>, cx: &BuildCx<'_>) -> ConfigResult<()> {
    let any: Any = config.and_then(|c| c.typed_config).unwrap_or_default();
    match any.type_name() {
        "" | "envoy.extensions.upstreams.http.generic.v3.GenericConnectionPoolProto" => Ok(()),
        other => Err(cx.error_at("upstream_config", format!("not supported: upstream of type {other}"))),
    }
}

/// The untyped part of `core.v3.Metadata`, which is what matchers and logs read.
pub fn metadata(proto: ProtoMetadata) -> Metadata {
    let ProtoMetadata {
        filter_metadata,
        typed_filter_metadata: _,
    } = proto;
    filter_metadata.into_iter().collect()
}

/// The one value of all that say nothing: an endpoint has two of them.
pub fn no_metadata() -> Arc<Metadata> {
    static NONE: LazyLock<Arc<Metadata>> = LazyLock::new(Arc::default);
    NONE.clone()
}

#[cfg(test)]
mod tests;
