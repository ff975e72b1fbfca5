//! `envoy.config.core.v3.HealthCheck` to [`HealthCheckConfig`].

use std::{sync::Arc, time::Duration};

use xds_protos::{
    envoy::config::core::v3::{
        HealthCheck as Proto,
        health_check::{CustomHealthCheck, HealthChecker, TlsOptions, custom_health_check::ConfigType},
    },
    google::protobuf::{self as pb, Struct},
};

use super::{
    events::EventLog, grpc::GrpcCheck, http::HttpCheck, redis::RedisCheck, tcp::TcpCheck, thrift::ThriftCheck,
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, unpack},
    runtime::Key,
    upstream::TransportOptions,
};

/// How a cluster's hosts are checked.
pub struct HealthCheckConfig {
    /// What is asked.
    pub kind: Kind,
    /// `timeout` of one check, its connection included.
    pub timeout: Duration,
    /// When to check again.
    pub intervals: Intervals,
    /// `unhealthy_threshold`: failures in a row before a host is not used any more.
    pub unhealthy_threshold: u32,
    /// `healthy_threshold`: successes in a row before a host is used again; the first check counts at once.
    pub healthy_threshold: u32,
    /// `reuse_connection`, true
    pub reuse_connection: bool,
    /// `tls_options.alpn_protocols`
    pub transport: Option<TransportOptions>,
    /// `transport_socket_match_criteria`: chooses the transport socket instead of the endpoint's metadata.
    pub socket_match: Option<Struct>,
    /// `event_log_path` and `event_logger`
    pub events: EventLog,
    /// `always_log_health_check_failures`
    pub log_failures: bool,
    /// `always_log_health_check_success`
    pub log_successes: bool,
}

/// What is asked of a host.
pub enum Kind {
    /// `http_health_check`
    Http(HttpCheck),
    /// `tcp_health_check`
    Tcp(TcpCheck),
    /// `grpc_health_check`
    Grpc(GrpcCheck),
    /// `custom_health_check`: `envoy.health_checkers.redis`
    Redis(RedisCheck),
    /// `custom_health_check`: `envoy.health_checkers.thrift`
    Thrift(ThriftCheck),
}

/// The time from the end of a check to the next one.
#[derive(Debug, Clone)]
pub struct Intervals {
    /// `interval`
    pub healthy: Duration,
    /// `healthy_edge_interval`: after a success that is not yet enough.
    pub healthy_edge: Duration,
    /// `unhealthy_interval`
    pub unhealthy: Duration,
    /// `unhealthy_edge_interval`: after a failure that is not yet enough.
    pub unhealthy_edge: Duration,
    /// `no_traffic_interval`, 60 s: as long as the cluster never had a connection.
    pub no_traffic: Duration,
    /// `no_traffic_healthy_interval`: likewise, for hosts that are well.
    pub no_traffic_healthy: Duration,
    /// `initial_jitter`: at most so long before the first check.
    pub initial_jitter: Duration,
    /// `interval_jitter`: at most so long on top.
    pub jitter: Duration,
    /// `interval_jitter_percent`: at most this share of the interval on top.
    pub jitter_percent: u32,
    /// `health_check.min_interval`, milliseconds
    pub min: Key,
    /// `health_check.max_interval`, milliseconds
    pub max: Key,
}

impl HealthCheckConfig {
    /// The checks of a cluster, if there are any. Envoy knows at most one for each cluster.
    pub fn build(protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Self>> {
        if protos.len() > 1 {
            return Err(cx.error("Multiple health checks not supported"));
        }
        let built = cx.each("health_checks", protos, Self::one)?;
        Ok(built.into_iter().next())
    }

    /// Whether hosts are asked over gRPC, for which they have to speak HTTP/2.
    pub fn is_grpc(&self) -> bool {
        matches!(self.kind, Kind::Grpc(_))
    }

    fn one(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent, unhealthy_threshold,
                healthy_threshold, reuse_connection, no_traffic_interval, no_traffic_healthy_interval,
                unhealthy_interval, unhealthy_edge_interval, healthy_edge_interval, event_log_path, event_logger,
                always_log_health_check_failures, always_log_health_check_success, tls_options,
                transport_socket_match_criteria, health_checker
            }
            ignored {
                alt_port: "Envoy does not use it either",
                event_service: "Envoy does not use it either; event_logger does"
            }
        });
        let (Some(timeout), Some(interval)) = (timeout, interval) else {
            return Err(cx.error("timeout and interval are required"));
        };
        let (Some(unhealthy_threshold), Some(healthy_threshold)) = (unhealthy_threshold, healthy_threshold) else {
            return Err(cx.error("unhealthy_threshold and healthy_threshold are required"));
        };
        let timeout = crate::config::duration(&timeout);
        let kind = match health_checker {
            Some(HealthChecker::HttpHealthCheck(http)) => {
                Kind::Http(cx.field("http_health_check", |cx| HttpCheck::build(http, cx))?)
            }
            Some(HealthChecker::TcpHealthCheck(tcp)) => {
                Kind::Tcp(cx.field("tcp_health_check", |cx| TcpCheck::build(tcp, cx))?)
            }
            Some(HealthChecker::GrpcHealthCheck(grpc)) => {
                Kind::Grpc(cx.field("grpc_health_check", |cx| GrpcCheck::build(grpc, timeout, cx))?)
            }
            Some(HealthChecker::CustomHealthCheck(custom)) => cx.field("custom_health_check", |cx| kind(custom, cx))?,
            None => return Err(cx.error_at("health_checker", "value is required")),
        };
        Ok(Self {
            kind,
            timeout,
            intervals: {
                let or = |value: Option<pb::Duration>, default| value.or_duration(default);
                let healthy = crate::config::duration(&interval);
                let unhealthy = or(unhealthy_interval, healthy);
                let no_traffic = or(no_traffic_interval, Duration::from_secs(60));
                Intervals {
                    healthy,
                    healthy_edge: or(healthy_edge_interval, healthy),
                    unhealthy,
                    unhealthy_edge: or(unhealthy_edge_interval, unhealthy),
                    no_traffic,
                    no_traffic_healthy: or(no_traffic_healthy_interval, no_traffic),
                    initial_jitter: or(initial_jitter, Duration::ZERO),
                    jitter: or(interval_jitter, Duration::ZERO),
                    jitter_percent: interval_jitter_percent,
                    min: cx.server.runtime.key("health_check.min_interval"),
                    max: cx.server.runtime.key("health_check.max_interval"),
                }
            },
            unhealthy_threshold: unhealthy_threshold.value,
            healthy_threshold: healthy_threshold.value,
            reuse_connection: reuse_connection.is_none_or(|v| v.value),
            transport: tls_options.map(|TlsOptions { alpn_protocols }| TransportOptions {
                alpn: alpn_protocols.into_iter().map(Arc::from).collect(),
                ..TransportOptions::default()
            }),
            socket_match: transport_socket_match_criteria,
            events: EventLog::build(event_log_path, event_logger, cx)?,
            log_failures: always_log_health_check_failures,
            log_successes: always_log_health_check_success,
        })
    }
}

/// What a `custom_health_check` asks, by the type of its configuration.
fn kind(proto: CustomHealthCheck, cx: &mut BuildCx<'_>) -> ConfigResult<Kind> {
    let CustomHealthCheck { name, config_type } = proto;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(cx.error_at("typed_config", format!("health checker '{name}' has none")));
    };
    let any = crate::config::plain(any, cx)?;
    match any.type_name() {
        "envoy.extensions.health_checkers.redis.v3.Redis" => Ok(Kind::Redis(RedisCheck::build(unpack(&any, cx)?, cx)?)),
        "envoy.extensions.health_checkers.thrift.v3.Thrift" => {
            Ok(Kind::Thrift(ThriftCheck::build(unpack(&any, cx)?, cx)?))
        }
        other => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{other}'"
        ))),
    }
}

impl Intervals {
    /// The jitter of the first check.
    pub fn initial(&self) -> Duration {
        if self.initial_jitter.is_zero() {
            return Duration::ZERO;
        }
        self.with_jitter(Duration::ZERO, self.initial_jitter)
    }

    /// The time to the next check: after `healthy` or a failure, of which `pending` says that a threshold is not yet
    /// reached, in a cluster that has or never had `traffic`.
    pub fn next(&self, healthy: bool, pending: bool, traffic: bool) -> Duration {
        let base = match (traffic, healthy, pending) {
            (true, true, false) => self.healthy,
            (true, true, true) => self.healthy_edge,
            (true, false, false) => self.unhealthy,
            (true, false, true) => self.unhealthy_edge,
            (false, true, false) => self.no_traffic_healthy,
            (false, ..) => self.no_traffic,
        };
        self.with_jitter(base, self.jitter)
    }

    fn with_jitter(&self, base: Duration, jitter: Duration) -> Duration {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let base = millis(base);
        let below = |limit: u64| if limit > 0 { fastrand::u64(..limit) } else { 0 };
        let share = base.saturating_mul(self.jitter_percent.into()) / 100;
        let wanted = base.saturating_add(below(share)).saturating_add(below(millis(jitter)));
        let limited = wanted.min(self.max.integer(u64::MAX)).max(self.min.integer(0)).max(1);
        Duration::from_millis(limited)
    }
}
