//! One virtual host, and how the virtual host of a request is found.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use xds_protos::envoy::config::{
    core::v3::Metadata,
    route::v3::{VirtualCluster as ProtoVirtualCluster, VirtualHost as Proto, virtual_host::TlsRequirementType},
};

use super::{
    CorsPolicy, EntryStats, HeaderMutations, MirrorPolicy, PerFilterConfigs, RetryPolicy, Route,
    action::Inherited,
    cluster_plugin::Plugins,
    rate_limit::RateLimitPolicy,
    retry,
    route_entry::{RouteCx, buffer_limit},
    routes::Routes,
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, Scheme},
    matching::HeaderMatcher,
};

/// One virtual host: its routes, and what they have in common.
#[derive(Debug)]
pub struct VirtualHost {
    /// `name`, as statistics show it.
    pub name: Arc<str>,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` upstream.
    pub include_request_attempt_count: bool,
    /// `include_attempt_count_in_response`: `x-envoy-attempt-count` downstream.
    pub include_attempt_count_in_response: bool,
    /// `include_is_timeout_retry_header`: `x-envoy-is-timeout-retry` upstream.
    pub include_is_timeout_retry_header: bool,
    /// `metadata`
    pub metadata: Option<Arc<Metadata>>,
    /// `cors` (deprecated): for routes without per-filter configuration of the CORS filter.
    pub cors: Option<Arc<CorsPolicy>>,
    /// The virtual host's rate limits.
    pub rate_limits: RateLimitPolicy,
    /// Virtual clusters in order.
    pub virtual_clusters: Vec<VirtualCluster>,
    /// What no virtual cluster matches, where there are some: `other`.
    pub other_virtual_cluster: Option<EntryStats>,
    /// Header mutations of the request on this level.
    pub request: HeaderMutations,
    /// Header mutations of the response on this level.
    pub response: HeaderMutations,
    /// Per-filter configuration on this level.
    pub filters: PerFilterConfigs,
    pub(super) routes: Routes,
    require_tls: RequireTls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequireTls {
    None,
    External,
    All,
}

/// `VirtualCluster`: statistics of the requests that match.
#[derive(Debug)]
pub struct VirtualCluster {
    /// Its statistics, under its name.
    pub stats: EntryStats,
    pub(super) headers: Vec<HeaderMatcher>,
}

impl VirtualHost {
    pub(super) fn build(
        proto: Proto,
        table_mirrors: &Arc<[MirrorPolicy]>,
        plugins: &Plugins,
        max_body: usize,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let require_tls_of = match proto.require_tls() {
            TlsRequirementType::None => RequireTls::None,
            TlsRequirementType::ExternalOnly => RequireTls::External,
            TlsRequirementType::All => RequireTls::All,
        };
        coverage!(cx, proto => Proto {
            supported {
                name, domains, routes, require_tls, virtual_clusters, rate_limits, request_headers_to_add,
                request_headers_to_remove, response_headers_to_add, response_headers_to_remove,
                typed_per_filter_config, include_request_attempt_count, include_attempt_count_in_response,
                retry_policy, hedge_policy, include_is_timeout_retry_header, per_request_buffer_limit_bytes,
                request_body_buffer_limit, request_mirror_policies, metadata, cors, matcher,
            }
            ignored {
                retry_policy_typed_config: "Envoy does not read it either",
            }
            rejected {
                route_specifiers: "no route specifier extension is built in",
            }
        });
        // Domains are the table's; the enum was read by its accessor.
        let _ = (domains, require_tls);
        let hedge = cx
            .opt("hedge_policy", hedge_policy, retry::hedge_policy)?
            .unwrap_or_default();
        let mirrors = cx.each("request_mirror_policies", request_mirror_policies, MirrorPolicy::build)?;
        let inherited = Inherited {
            retry_policy: cx.opt("retry_policy", retry_policy, RetryPolicy::build)?.map(Arc::new),
            hedge,
            mirrors: if mirrors.is_empty() {
                table_mirrors.clone()
            } else {
                mirrors.into()
            },
            request_body_buffer_limit: buffer_limit(request_body_buffer_limit, per_request_buffer_limit_bytes),
        };
        let with = RouteCx {
            inherited: &inherited,
            plugins,
            virtual_host: &name,
            max_body,
        };
        let request_fields = ("request_headers_to_add", "request_headers_to_remove");
        let response_fields = ("response_headers_to_add", "response_headers_to_remove");
        Ok(Self {
            name: name.as_str().into(),
            include_request_attempt_count,
            include_attempt_count_in_response,
            include_is_timeout_retry_header,
            metadata: metadata.map(Arc::new),
            cors: cx.opt("cors", cors, CorsPolicy::build_deprecated)?.map(Arc::new),
            rate_limits: RateLimitPolicy::build(rate_limits, cx)?,
            other_virtual_cluster: (!virtual_clusters.is_empty())
                .then(|| EntryStats::new(&name, "vcluster", "other", cx)),
            virtual_clusters: cx.each("virtual_clusters", virtual_clusters, |proto, cx| {
                VirtualCluster::build(proto, &name, cx)
            })?,
            request: HeaderMutations::build(request_fields, request_headers_to_add, request_headers_to_remove, cx)?,
            response: HeaderMutations::build(response_fields, response_headers_to_add, response_headers_to_remove, cx)?,
            filters: PerFilterConfigs::build(typed_per_filter_config, cx)?,
            routes: match matcher {
                None => Routes::new(cx.each("routes", routes, |r, cx| Route::build(r, &with, cx))?),
                Some(_) if !routes.is_empty() => {
                    return Err(cx.error("cannot set both matcher and routes on virtual host"));
                }
                Some(matcher) => cx.field("matcher", |cx| Routes::of_tree(matcher, &with, cx))?,
            },
            require_tls: require_tls_of,
        })
    }

    /// Its routes, in order.
    pub fn routes(&self) -> &[Route] {
        self.routes.all()
    }

    /// Whether `require_tls` sends this request to https; `x-forwarded-proto` says what the client spoke.
    pub(super) fn redirects_to_tls(&self, head: &RequestHead) -> bool {
        if self.require_tls == RequireTls::None {
            return false;
        }
        let https = match head.headers.get("x-forwarded-proto") {
            Some(proto) => proto.as_bytes() == b"https",
            None => head.scheme == Scheme::Https,
        };
        let internal = || {
            head.headers
                .get("x-envoy-internal")
                .is_some_and(|v| v.as_bytes() == b"true")
        };
        !https && (self.require_tls == RequireTls::All || !internal())
    }
}

impl VirtualCluster {
    fn build(proto: ProtoVirtualCluster, virtual_host: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoVirtualCluster { supported { headers, name } });
        if headers.is_empty() {
            return Err(cx.error("virtual clusters must define 'headers'"));
        }
        Ok(Self {
            stats: EntryStats::new(virtual_host, "vcluster", &name, cx),
            headers: cx.each("headers", headers, HeaderMatcher::build)?,
        })
    }
}

/// Which virtual host has a domain: exact, then the longest suffix wildcard, then the longest prefix wildcard,
/// then `*`. One hash look-up for each length there is.
#[derive(Debug, Default)]
pub(super) struct Domains {
    exact: HashMap<Box<str>, u32>,
    /// `*.foo.com`, by length, longest first.
    suffixes: Wildcards,
    /// `foo.*`, likewise.
    prefixes: Wildcards,
    any: Option<u32>,
}

type Wildcards = Vec<(usize, HashMap<Box<str>, u32>)>;

impl Domains {
    /// Adds a domain; an error in Envoy's words when another virtual host has it.
    pub(super) fn add(&mut self, domain: &str, vhost: u32, table: &str) -> Result<(), String> {
        let domain = domain.to_ascii_lowercase();
        let duplicate = if domain == "*" {
            if self.any.replace(vhost).is_some() {
                return Err(format!("Only a single wildcard domain is permitted in route {table}"));
            }
            None
        } else if let Some(suffix) = domain.strip_prefix('*') {
            wildcard(&mut self.suffixes, suffix.len()).insert(suffix.into(), vhost)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            wildcard(&mut self.prefixes, prefix.len()).insert(prefix.into(), vhost)
        } else {
            self.exact.insert(domain.as_str().into(), vhost)
        };
        match duplicate {
            None => Ok(()),
            Some(_) => Err(format!(
                "Only unique values for domains are permitted. Duplicate entry of domain {domain} in route {table}"
            )),
        }
    }

    /// Whether `*` is the only domain, so that the host does not matter.
    fn only_any(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty()
    }

    /// The virtual host of this host; a request that names none is only in one for `*`, and only if that is all.
    pub(super) fn find(&self, host: Option<&str>) -> Option<u32> {
        if self.only_any() {
            return self.any;
        }
        let host = host?;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        // A wildcard stands for at least one character.
        let longest = |wildcards: &Wildcards, part: fn(&str, usize) -> Option<&str>| {
            let shorter = wildcards.iter().filter(|(len, _)| *len < host.len());
            shorter
                .into_iter()
                .find_map(|(len, map)| map.get(part(&host, *len)?).copied())
        };
        self.exact
            .get(host.as_ref())
            .copied()
            .or_else(|| longest(&self.suffixes, |host, len| host.get(host.len() - len..)))
            .or_else(|| longest(&self.prefixes, |host, len| host.get(..len)))
            .or(self.any)
    }
}

fn wildcard(wildcards: &mut Wildcards, len: usize) -> &mut HashMap<Box<str>, u32> {
    let at = match wildcards.binary_search_by(|(l, _)| len.cmp(l)) {
        Ok(at) => at,
        Err(at) => {
            wildcards.insert(at, (len, HashMap::new()));
            at
        }
    };
    &mut wildcards[at].1
}

/// The host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if host.rfind(']').is_none_or(|bracket| bracket < colon) => &host[..colon],
        _ => host,
    }
}
