//! The table: a `RouteConfiguration`, built.

use std::sync::Arc;

use http::HeaderName;
use xds_protos::envoy::config::{
    core::v3::{ConfigSource, Metadata, api_config_source::ApiType, config_source::ConfigSourceSpecifier},
    route::v3::{RouteConfiguration, Vhds},
};

use super::{
    HeaderMutations, MirrorPolicy, PerFilterConfigs, Route, RouteMatch, VirtualHost, cluster_plugin,
    virtual_host::{Domains, without_port},
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, StreamInfo},
    matching::HeaderLookup,
};

/// What looking up a route gives.
#[derive(Clone)]
pub enum RouteOutcome {
    /// No virtual host has the request's host (and none is the wildcard): VHDS may know one.
    NoVirtualHost,
    /// The virtual host has no route for the request.
    NoRoute,
    /// A route, or the https redirect of `require_tls` (an [`Action::Redirect`](super::Action)).
    Match(RouteMatch),
}

impl RouteOutcome {
    /// The route, if there is one.
    pub fn matched(self) -> Option<RouteMatch> {
        match self {
            Self::Match(m) => Some(m),
            Self::NoVirtualHost | Self::NoRoute => None,
        }
    }
}

/// One `RouteConfiguration`, built: immutable, shared by all workers.
#[derive(Debug)]
pub struct RouteTable {
    /// `name`
    pub name: Arc<str>,
    /// `internal_only_headers`: taken off external requests.
    pub internal_only_headers: Vec<HeaderName>,
    /// `most_specific_header_mutations_wins`
    pub most_specific_header_mutations_wins: bool,
    /// `metadata`
    pub metadata: Option<Arc<Metadata>>,
    /// `vhds`: where virtual hosts that are not in the table come from.
    pub vhds: Option<ConfigSource>,
    pub(super) vhosts: Vec<VirtualHost>,
    pub(super) request: HeaderMutations,
    pub(super) response: HeaderMutations,
    pub(super) filters: PerFilterConfigs,
    /// The route of requests that `require_tls` sends to https.
    pub(super) tls_redirect: Route,
    domains: Domains,
    vhost_header: Option<HeaderLookup>,
    ignore_port: bool,
    ignore_path_parameters: bool,
}

/// Default of `max_direct_response_body_size_bytes`.
const MAX_DIRECT_RESPONSE_BODY: u32 = 4096;

impl RouteTable {
    /// Builds the table of a resource from a control plane. Errors are in Envoy's words where Envoy has some.
    pub fn build(proto: RouteConfiguration, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let server = cx.server;
        Self::build_with(proto, false, &|name| server.clusters.contains(name), cx)
    }

    /// Builds the table. `validate_clusters` is the default of the field of this name: true for an inline
    /// `route_config`. `has_cluster` is what is asked then.
    pub fn build_with(
        proto: RouteConfiguration,
        validate_clusters: bool,
        has_cluster: &dyn Fn(&str) -> bool,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<Self>> {
        let validate = proto.validate_clusters.map_or(validate_clusters, |v| v.value);
        coverage!(cx, proto => RouteConfiguration {
            supported {
                name, virtual_hosts, vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove,
                request_headers_to_add, request_headers_to_remove, most_specific_header_mutations_wins,
                validate_clusters, max_direct_response_body_size_bytes, request_mirror_policies,
                ignore_port_in_host_matching, vhost_header, ignore_path_parameters_in_path_matching,
                typed_per_filter_config, metadata, cluster_specifier_plugins,
            }
            rejected { route_specifiers: "no route specifier extension is built in" }
        });
        let max_body = max_direct_response_body_size_bytes.map_or(MAX_DIRECT_RESPONSE_BODY, |v| v.value) as usize;
        let mirrors: Arc<[MirrorPolicy]> = cx
            .each("request_mirror_policies", request_mirror_policies, MirrorPolicy::build)?
            .into();
        let plugins = cluster_plugin::build_named(cluster_specifier_plugins, cx)?;
        let mut domains = Domains::default();
        let mut vhosts = Vec::with_capacity(virtual_hosts.len());
        for (i, proto) in virtual_hosts.into_iter().enumerate() {
            vhosts.push(cx.item("virtual_hosts", i, |cx| {
                for (d, domain) in proto.domains.iter().enumerate() {
                    let added = domains.add(domain, i as u32, &name);
                    cx.item("domains", d, |cx| added.map_err(|e| cx.error(e)))?;
                }
                VirtualHost::build(proto, &mirrors, &plugins, max_body, cx)
            })?);
        }
        let request_fields = ("request_headers_to_add", "request_headers_to_remove");
        let response_fields = ("response_headers_to_add", "response_headers_to_remove");
        let table = Self {
            name: name.into(),
            // A name that no header can have does not matter.
            internal_only_headers: internal_only_headers
                .iter()
                .filter_map(|name| HeaderName::try_from(name.to_ascii_lowercase()).ok())
                .collect(),
            most_specific_header_mutations_wins,
            metadata: metadata.map(Arc::new),
            vhds: cx.opt("vhds", vhds, |proto, cx| {
                coverage!(cx, proto => Vhds { supported { config_source } });
                let source = config_source.ok_or_else(|| cx.error_at("config_source", "value is required"))?;
                let delta = match &source.config_source_specifier {
                    Some(ConfigSourceSpecifier::Ads(_)) => true,
                    Some(ConfigSourceSpecifier::ApiConfigSource(api)) => api.api_type() == ApiType::DeltaGrpc,
                    _ => false,
                };
                if delta {
                    Ok(source)
                } else {
                    Err(cx.error(
                        "vhds: only 'DELTA_GRPC' or 'ADS' (which uses Delta xDS) is supported as a config source.",
                    ))
                }
            })?,
            vhosts,
            request: HeaderMutations::build(request_fields, request_headers_to_add, request_headers_to_remove, cx)?,
            response: HeaderMutations::build(response_fields, response_headers_to_add, response_headers_to_remove, cx)?,
            filters: PerFilterConfigs::build(typed_per_filter_config, cx)?,
            tls_redirect: Route::require_tls(),
            domains,
            vhost_header: match vhost_header.as_str() {
                "" => None,
                header => Some(HeaderLookup::of(header)),
            },
            ignore_port: ignore_port_in_host_matching,
            ignore_path_parameters: ignore_path_parameters_in_path_matching,
        };
        // Read above.
        let _ = validate_clusters;
        if validate {
            table.check_clusters(has_cluster).map_err(|e| cx.error(e))?;
        }
        Ok(Arc::new(table))
    }

    /// `validate_clusters`: every cluster named in a route must be known.
    fn check_clusters(&self, has_cluster: &dyn Fn(&str) -> bool) -> Result<(), String> {
        for action in self.vhosts.iter().flat_map(|v| v.routes()).filter_map(|r| r.forward()) {
            for (name, weighted) in action.cluster.names() {
                if !has_cluster(name) {
                    let kind = if weighted { "weighted cluster" } else { "cluster" };
                    return Err(format!("route: unknown {kind} '{name}'"));
                }
            }
            for mirror in action.mirrors.iter().filter(|m| !m.cluster.is_empty()) {
                if !has_cluster(&mirror.cluster) {
                    return Err(format!("route: unknown shadow cluster '{}'", mirror.cluster));
                }
            }
        }
        Ok(())
    }

    /// Chooses a route. `random` is the stream's random number: runtime fractions and weighted clusters use it.
    pub fn find(self: &Arc<Self>, head: &RequestHead, info: &StreamInfo, random: u64) -> RouteOutcome {
        let Some((at, vhost)) = self.find_virtual_host(head) else {
            return RouteOutcome::NoVirtualHost;
        };
        // As Envoy: a request that cannot say what the client spoke has no route.
        if head
            .headers
            .get("x-forwarded-proto")
            .is_some_and(|proto| proto.is_empty())
        {
            return RouteOutcome::NoRoute;
        }
        if vhost.redirects_to_tls(head) {
            return RouteOutcome::Match(RouteMatch::require_tls(self.clone(), at));
        }
        match vhost.routes.find(head, info, random, self.ignore_path_parameters) {
            Some(route) => RouteOutcome::Match(RouteMatch::new(self.clone(), at, route, head, info, random)),
            None => RouteOutcome::NoRoute,
        }
    }

    fn find_virtual_host(&self, head: &RequestHead) -> Option<(u32, &VirtualHost)> {
        let mut host = match &self.vhost_header {
            None => head.authority.as_ref().map(|_| head.host()),
            Some(header) => header.first(head).map(|v| std::str::from_utf8(v).unwrap_or_default()),
        };
        if self.ignore_port {
            host = host.map(without_port);
        }
        let at = self.domains.find(host)?;
        Some((at, self.vhosts.get(at as usize)?))
    }

    /// The virtual hosts, in order.
    pub fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.vhosts
    }
}
