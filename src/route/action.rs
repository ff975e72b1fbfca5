//! `RouteAction`: where a request goes and how.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode};
use xds_protos::envoy::config::{
    core::v3::{ProxyProtocolConfig, RoutingPriority, TypedExtensionConfig, proxy_protocol_config},
    route::v3::{
        InternalRedirectPolicy as ProtoInternalRedirect, RouteAction as Proto,
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier as ProtoSpecifier, InternalRedirectAction,
            MaxStreamDuration as ProtoMaxStreamDuration, UpgradeConfig, upgrade_config::ConnectConfig as ProtoConnect,
        },
    },
};

use super::{
    ClusterSpecifier, CorsPolicy, HashPolicies, MetadataMatch, MirrorPolicy, RedirectPredicate, RetryPolicy,
    cluster::lb_metadata,
    mutation::header_name,
    path::PathMatch,
    path_template::TemplateRewrite,
    rate_limit::RateLimitPolicy,
    retry,
    rewrite::{HostRewrite, PathRewrite},
    route_entry::RouteCx,
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, positive},
    formatter::Format,
    matching::RegexSubstitution,
};

/// `RoutingPriority`: which circuit breakers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Priority {
    /// `DEFAULT`
    #[default]
    Default,
    /// `HIGH`
    High,
}

/// Forwards to a cluster.
#[derive(Debug, Clone)]
pub struct RouteAction {
    /// `cors` (deprecated): see [`VirtualHost::cors`](super::VirtualHost::cors).
    pub cors: Option<Arc<CorsPolicy>>,
    /// How the cluster is chosen; the choice itself is in [`RouteMatch::cluster_name`](super::RouteMatch::cluster_name).
    pub cluster: ClusterSpecifier,
    /// Status when the cluster is not known; default 503.
    pub cluster_not_found: StatusCode,
    /// `metadata_match["envoy.lb"]` of the route; weighted clusters add theirs
    /// ([`RouteMatch::metadata_match`](super::RouteMatch::metadata_match)).
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// All time limits.
    pub timeouts: Timeouts,
    /// The route's or else the virtual host's policy.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// Mirrors of the route, else of the virtual host, else of the route configuration.
    pub mirrors: Arc<[MirrorPolicy]>,
    /// Which circuit breakers count.
    pub priority: Priority,
    /// The route's own rate limits.
    pub rate_limits: RateLimitPolicy,
    /// Whether the virtual host's rate limits count besides the route's.
    pub include_vh_rate_limits: bool,
    /// `hedge_policy.hedge_on_per_try_timeout`
    pub hedge: bool,
    /// What is hashed for ring hash and Maglev.
    pub hash_policy: HashPolicies,
    /// `upgrade_configs`: lower-case type, enabled. They override the connection manager's.
    pub upgrades: Vec<(String, bool)>,
    /// `connect_config`: CONNECT (or CONNECT-UDP) is terminated here.
    pub connect: Option<ConnectConfig>,
    /// Internal redirects; none: passed through.
    pub internal_redirect: Option<InternalRedirectPolicy>,
    /// `auto_host_rewrite`: the host becomes the upstream host's name; the router calls
    /// [`RouteMatch::rewrite_host`](super::RouteMatch::rewrite_host) for each attempt.
    pub auto_host_rewrite: bool,
    /// `append_x_forwarded_host`
    pub append_x_forwarded_host: bool,
    pub(super) path_rewrite: PathRewrite,
    pub(super) host_rewrite: HostRewrite,
}

/// What a route takes from its virtual host when it says nothing itself.
#[derive(Clone)]
pub(super) struct Inherited {
    pub(super) retry_policy: Option<Arc<RetryPolicy>>,
    pub(super) hedge: bool,
    pub(super) mirrors: Arc<[MirrorPolicy]>,
    pub(super) request_body_buffer_limit: Option<u64>,
}

impl RouteAction {
    pub(super) fn build(
        proto: Proto,
        route: &str,
        path: &PathMatch,
        with: &RouteCx<'_>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let from = with.inherited;
        let cluster_not_found = match proto.cluster_not_found_response_code() {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let routing_priority = match proto.priority() {
            RoutingPriority::Default => Priority::Default,
            RoutingPriority::High => Priority::High,
        };
        let follow = proto.internal_redirect_action() == InternalRedirectAction::HandleInternalRedirect;
        coverage!(cx, proto => Proto {
            supported {
                cluster_not_found_response_code, metadata_match, prefix_rewrite, regex_rewrite, path_rewrite, path_rewrite_policy,
                append_x_forwarded_host, timeout, idle_timeout, flush_timeout, retry_policy, request_mirror_policies,
                priority, rate_limits, include_vh_rate_limits, hash_policy, max_grpc_timeout, grpc_timeout_offset,
                upgrade_configs, internal_redirect_policy, internal_redirect_action, max_internal_redirects,
                hedge_policy, max_stream_duration, cluster_specifier, host_rewrite_specifier, cors,
            }
            ignored {
                early_data_policy: "early data is not accepted",
                retry_policy_typed_config: "Envoy does not read it either",
            }
        });
        // Enums were read by their accessors.
        let _ = (cluster_not_found_response_code, internal_redirect_action, priority);
        cx.opt("early_data_policy", early_data_policy, check_early_data)?;
        let metadata_match = metadata_match.and_then(lb_metadata).map(Arc::new);
        let hedge = match cx.opt("hedge_policy", hedge_policy, retry::hedge_policy)? {
            Some(own) => own,
            None => from.hedge,
        };
        let mirrors = cx.each("request_mirror_policies", request_mirror_policies, MirrorPolicy::build)?;
        let (host_rewrite, auto_host_rewrite) = HostRewrite::build(host_rewrite_specifier, cx)?;
        let (upgrades, connect) = upgrades(upgrade_configs, cx)?;
        let internal_redirect = match internal_redirect_policy {
            Some(p) => Some(cx.field("internal_redirect_policy", |cx| InternalRedirectPolicy::build(p, cx))?),
            None if follow => {
                let proto = ProtoInternalRedirect {
                    max_internal_redirects,
                    ..Default::default()
                };
                Some(InternalRedirectPolicy::build(proto, cx)?)
            }
            None => None,
        };
        Ok(Self {
            cluster: ClusterSpecifier::build(cluster_specifier, metadata_match.as_ref(), route, with.plugins, cx)?,
            cluster_not_found,
            metadata_match,
            cors: cx.opt("cors", cors, CorsPolicy::build_deprecated)?.map(Arc::new),
            timeouts: Timeouts {
                global: cx.opt("timeout", timeout, positive)?.unwrap_or(DEFAULT_TIMEOUT),
                idle: cx.opt("idle_timeout", idle_timeout, positive)?,
                flush: cx.opt("flush_timeout", flush_timeout, positive)?,
                max_grpc: cx.opt("max_grpc_timeout", max_grpc_timeout, positive)?,
                grpc_offset: cx.opt("grpc_timeout_offset", grpc_timeout_offset, positive)?,
                max_stream_duration: cx.opt("max_stream_duration", max_stream_duration, MaxStreamDuration::build)?,
            },
            retry_policy: match cx.opt("retry_policy", retry_policy, RetryPolicy::build)? {
                Some(own) => Some(Arc::new(own)),
                None => from.retry_policy.clone(),
            },
            mirrors: if mirrors.is_empty() {
                from.mirrors.clone()
            } else {
                mirrors.into()
            },
            priority: routing_priority,
            hedge,
            rate_limits: RateLimitPolicy::build(rate_limits, cx)?,
            include_vh_rate_limits: include_vh_rate_limits.is_some_and(|b| b.value),
            hash_policy: HashPolicies::build(hash_policy, cx)?,
            upgrades,
            connect,
            internal_redirect,
            auto_host_rewrite,
            append_x_forwarded_host,
            path_rewrite: path_rewrite_of(
                (prefix_rewrite, regex_rewrite, path_rewrite, path_rewrite_policy),
                path,
                cx,
            )?,
            host_rewrite,
        })
    }

    /// The action of a route whose answer is left to a filter: no cluster has an empty name.
    pub(super) fn non_forwarding(with: &RouteCx<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = Proto {
            cluster_specifier: Some(ProtoSpecifier::Cluster(String::new())),
            ..Proto::default()
        };
        Self::build(proto, "", &PathMatch::Prefix(String::new()), with, cx)
    }

    /// Whether this upgrade type is enabled or disabled on the route; none when the route does not say.
    pub fn upgrade(&self, upgrade_type: &str) -> Option<bool> {
        self.upgrades
            .iter()
            .find(|(t, _)| t.eq_ignore_ascii_case(upgrade_type))
            .map(|(_, enabled)| *enabled)
    }
}

/// Time limits of a route. Zero disables a limit that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `timeout`: the whole request, retries included; default 15 s, zero: no limit.
    pub global: Duration,
    /// `idle_timeout`: replaces the connection manager's `stream_idle_timeout`.
    pub idle: Option<Duration>,
    /// `flush_timeout`: replaces the connection manager's `stream_flush_timeout`.
    pub flush: Option<Duration>,
    /// `max_grpc_timeout` (deprecated): upper bound of `grpc-timeout`; zero: no bound.
    pub max_grpc: Option<Duration>,
    /// `grpc_timeout_offset` (deprecated): taken off a `grpc-timeout`.
    pub grpc_offset: Option<Duration>,
    /// `max_stream_duration`; when there is one, the two deprecated gRPC limits have no effect.
    pub max_stream_duration: Option<MaxStreamDuration>,
}

/// `MaxStreamDuration`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxStreamDuration {
    /// `max_stream_duration`: overrides the connection manager's; zero: no limit.
    pub max: Option<Duration>,
    /// `grpc_timeout_header_max`: when set, `grpc-timeout` is obeyed up to this; zero: no bound.
    pub grpc_max: Option<Duration>,
    /// `grpc_timeout_header_offset`
    pub grpc_offset: Option<Duration>,
}

/// `UpgradeConfig.ConnectConfig`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectConfig {
    /// PROXY protocol version to send upstream (1 or 2).
    pub proxy_protocol: Option<u8>,
    /// Also terminates POST.
    pub allow_post: bool,
}

/// `InternalRedirectPolicy`
#[derive(Debug, Clone)]
pub struct InternalRedirectPolicy {
    /// Redirects followed for one request; default 1.
    pub max_internal_redirects: u32,
    /// Statuses that are followed; default 302.
    pub response_codes: Vec<StatusCode>,
    /// Whether a redirect may change the scheme.
    pub allow_cross_scheme: bool,
    /// Response headers copied into the new request.
    pub headers_to_copy: Vec<HeaderName>,
    /// Predicates in order.
    pub predicates: Vec<RedirectPredicate>,
}

/// The default of [`Timeouts::global`].
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

type PathRewrites = (
    String,
    Option<xds_protos::envoy::r#type::matcher::v3::RegexMatchAndSubstitute>,
    String,
    Option<TypedExtensionConfig>,
);

/// At most one of the ways to rewrite a path.
fn path_rewrite_of(
    (prefix, regex, format, policy): PathRewrites,
    path: &PathMatch,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<PathRewrite> {
    let given = [
        !prefix.is_empty(),
        regex.is_some(),
        !format.is_empty(),
        policy.is_some(),
    ];
    if given.into_iter().filter(|given| *given).count() > 1 {
        return Err(cx.error("Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy"));
    }
    let template = match path {
        PathMatch::Template(_) if !prefix.is_empty() => {
            return Err(cx.error("Cannot use prefix_rewrite with matcher extension"));
        }
        PathMatch::Template(template) => Some(template),
        _ => None,
    };
    if let Some(policy) = policy {
        let rewrite = cx.field("path_rewrite_policy", |cx| TemplateRewrite::build(policy, template, cx))?;
        return Ok(PathRewrite::Template(rewrite));
    }
    if let Some(regex) = regex {
        return cx
            .field("regex_rewrite", |cx| RegexSubstitution::build(regex, cx))
            .map(PathRewrite::Regex);
    }
    if !format.is_empty() {
        return cx
            .field("path_rewrite", |cx| Format::parse_omit_empty(&format, cx))
            .map(PathRewrite::Format);
    }
    Ok(if prefix.is_empty() {
        PathRewrite::None
    } else {
        PathRewrite::Prefix(prefix)
    })
}

/// Early data is never taken, but a policy has to be one that Envoy knows.
fn check_early_data(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
    let any = proto.typed_config.unwrap_or_default();
    match any.type_name() {
        "envoy.extensions.early_data.v3.DefaultEarlyDataPolicy" => Ok(()),
        kind => Err(cx.error(format!(
            "Didn't find a registered implementation for '{}' with type URL: '{kind}'",
            proto.name
        ))),
    }
}

type Upgrades = (Vec<(String, bool)>, Option<ConnectConfig>);

fn upgrades(protos: Vec<UpgradeConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<Upgrades> {
    let mut upgrades: Vec<(String, bool)> = Vec::new();
    let mut connect = None;
    for (i, proto) in protos.into_iter().enumerate() {
        cx.item("upgrade_configs", i, |cx| {
            coverage!(cx, proto => UpgradeConfig { supported { upgrade_type, enabled, connect_config } });
            let lower = upgrade_type.to_ascii_lowercase();
            if upgrades.iter().any(|(t, _)| *t == lower) {
                return Err(cx.error(format!("Duplicate upgrade {upgrade_type}")));
            }
            if let Some(config) = connect_config {
                if !matches!(lower.as_str(), "connect" | "connect-udp") {
                    return Err(cx.error(format!("Non-CONNECT upgrade type {upgrade_type} has ConnectConfig")));
                }
                connect = Some(cx.field("connect_config", |cx| ConnectConfig::build(config, cx))?);
            }
            upgrades.push((lower, enabled.is_none_or(|b| b.value)));
            Ok(())
        })?;
    }
    Ok((upgrades, connect))
}

impl MaxStreamDuration {
    fn build(proto: ProtoMaxStreamDuration, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoMaxStreamDuration {
            supported { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset }
        });
        Ok(Self {
            max: cx.opt("max_stream_duration", max_stream_duration, positive)?,
            grpc_max: cx.opt("grpc_timeout_header_max", grpc_timeout_header_max, positive)?,
            grpc_offset: cx.opt("grpc_timeout_header_offset", grpc_timeout_header_offset, positive)?,
        })
    }
}

impl ConnectConfig {
    fn build(proto: ProtoConnect, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoConnect { supported { proxy_protocol_config, allow_post } });
        let proxy_protocol = cx.opt("proxy_protocol_config", proxy_protocol_config, |proto, cx| {
            let number = match proto.version() {
                proxy_protocol_config::Version::V1 => 1,
                proxy_protocol_config::Version::V2 => 2,
            };
            coverage!(cx, proto => ProxyProtocolConfig {
                supported { version }
                ignored { pass_through_tlvs: "no TLV is passed on over CONNECT" }
                rejected { added_tlvs: "no TLV is added over CONNECT" }
            });
            // Read by its accessor.
            let _ = version;
            Ok(number)
        })?;
        Ok(Self {
            proxy_protocol,
            allow_post,
        })
    }
}

impl InternalRedirectPolicy {
    fn build(proto: ProtoInternalRedirect, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoInternalRedirect {
            supported {
                max_internal_redirects, redirect_response_codes, predicates, allow_cross_scheme_redirect,
                response_headers_to_copy,
            }
        });
        let response_codes = if redirect_response_codes.is_empty() {
            vec![StatusCode::FOUND]
        } else {
            redirect_response_codes
                .into_iter()
                .filter(|c| [301, 302, 303, 307, 308].contains(c))
                .filter_map(|c| StatusCode::from_u16(u16::try_from(c).ok()?).ok())
                .collect()
        };
        Ok(Self {
            max_internal_redirects: max_internal_redirects.map_or(1, |n| n.value),
            response_codes,
            allow_cross_scheme: allow_cross_scheme_redirect,
            headers_to_copy: cx.each("response_headers_to_copy", response_headers_to_copy, |name, cx| {
                if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                    return Err(cx.error(":-prefixed headers or Hosts may not be specified here."));
                }
                header_name(&name, cx)
            })?,
            predicates: cx.each("predicates", predicates, |proto, cx| {
                coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
                RedirectPredicate::build(&name, typed_config, cx)
            })?,
        })
    }
}
