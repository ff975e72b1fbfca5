//! The table: a `RouteConfiguration`, built.

use std::sync::Arc;

use http::HeaderName;
use xds_protos::envoy::config::{
    core::v3::{ConfigSource, Metadata},
    route::v3::{RouteConfiguration, Vhds},
};

use super::{
    HeaderMutations, MirrorPolicy, PerFilterConfigs, RouteMatch, VirtualHost,
    cluster::lookup,
    mutation::header_name,
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
        Self::build_with(proto, None, cx)
    }

    /// Builds the table; `has_cluster` is what `validate_clusters` asks, given where it defaults to true (an
    /// inline `route_config`).
    pub fn build_with(
        proto: RouteConfiguration,
        has_cluster: Option<&dyn Fn(&str) -> bool>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<Self>> {
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
        if let Some(plugin) = cluster_specifier_plugins.into_iter().find(|p| !p.is_optional) {
            let extension = plugin.extension.unwrap_or_default();
            return Err(cx.error_at(
                "cluster_specifier_plugins",
                format!(
                    "Didn't find a registered implementation for '{}' with type URL: '{}'",
                    extension.name,
                    extension.typed_config.map(|a| a.type_url).unwrap_or_default()
                ),
            ));
        }
        let max_body = max_direct_response_body_size_bytes.map_or(MAX_DIRECT_RESPONSE_BODY, |v| v.value) as usize;
        let mirrors: Arc<[MirrorPolicy]> = cx
            .each("request_mirror_policies", request_mirror_policies, MirrorPolicy::build)?
            .into();
        let mut domains = Domains::default();
        let mut vhosts = Vec::with_capacity(virtual_hosts.len());
        for (i, proto) in virtual_hosts.into_iter().enumerate() {
            vhosts.push(cx.item("virtual_hosts", i, |cx| {
                for (d, domain) in proto.domains.iter().enumerate() {
                    let added = domains.add(domain, i as u32, &name);
                    cx.item("domains", d, |cx| added.map_err(|e| cx.error(e)))?;
                }
                VirtualHost::build(proto, &mirrors, max_body, cx)
            })?);
        }
        let request_fields = ("request_headers_to_add", "request_headers_to_remove");
        let response_fields = ("response_headers_to_add", "response_headers_to_remove");
        let table = Self {
            name: name.into(),
            internal_only_headers: cx.each("internal_only_headers", internal_only_headers, |n, cx| {
                header_name(&n, cx)
            })?,
            most_specific_header_mutations_wins,
            metadata: metadata.map(Arc::new),
            vhds: cx.opt("vhds", vhds, |proto, cx| {
                coverage!(cx, proto => Vhds { supported { config_source } });
                config_source.ok_or_else(|| cx.error_at("config_source", "value is required"))
            })?,
            vhosts,
            request: HeaderMutations::build(request_fields, request_headers_to_add, request_headers_to_remove, cx)?,
            response: HeaderMutations::build(response_fields, response_headers_to_add, response_headers_to_remove, cx)?,
            filters: PerFilterConfigs::build(typed_per_filter_config, cx)?,
            domains,
            vhost_header: match vhost_header.as_str() {
                "" => None,
                header => Some(cx.field("vhost_header", |cx| lookup(header, cx))?),
            },
            ignore_port: ignore_port_in_host_matching,
            ignore_path_parameters: ignore_path_parameters_in_path_matching,
        };
        if let Some(has_cluster) = has_cluster
            && validate_clusters.is_none_or(|b| b.value)
        {
            table.check_clusters(has_cluster).map_err(|e| cx.error(e))?;
        }
        Ok(Arc::new(table))
    }

    /// `validate_clusters`: every cluster named in a route must be known.
    fn check_clusters(&self, has_cluster: &dyn Fn(&str) -> bool) -> Result<(), String> {
        for action in self.vhosts.iter().flat_map(|v| v.routes()).filter_map(|r| r.forward()) {
            for name in action.cluster.names() {
                if !has_cluster(name) {
                    return Err(format!("route: unknown cluster '{name}'"));
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
            None => head.host(),
            Some(header) => header
                .first(head)
                .and_then(|v| std::str::from_utf8(v).ok())
                .unwrap_or_default(),
        };
        if self.ignore_port {
            host = without_port(host);
        }
        let at = self.domains.find(host)?;
        Some((at, self.vhosts.get(at as usize)?))
    }

    /// The virtual hosts, in order.
    pub fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.vhosts
    }
}
