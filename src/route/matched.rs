//! A route that was chosen for one request, and what the router asks of it.

use std::{ops::Deref, sync::Arc};

use http::HeaderValue;

use super::{
    Action, ClusterSpecifier, ClusterWeight, EntryStats, HashOutcome, HeaderMutations, MetadataMatch, Route,
    RouteTable, VirtualHost,
    rewrite::{set_host, set_path},
};
use crate::{
    formatter::FormatCx,
    http::{RequestHead, ResponseHead, StreamInfo, filter::RouteConfig, inline_headers},
};

/// A route that matched: keeps its table alive for the stream's life. Cheap to clone.
#[derive(Clone)]
pub struct RouteMatch {
    table: Arc<RouteTable>,
    vhost: u32,
    /// `REQUIRE_TLS`: the virtual host's https redirect.
    route: u32,
    /// Index in the weighted clusters; `NOT_WEIGHTED` without.
    weighted: u32,
    /// The cluster that a header or a plug-in named; none when configuration names it.
    named: Option<Arc<str>>,
}

const REQUIRE_TLS: u32 = u32::MAX;
const NOT_WEIGHTED: u32 = u32::MAX;

impl RouteMatch {
    pub(super) fn require_tls(table: Arc<RouteTable>, vhost: u32) -> Self {
        Self {
            table,
            vhost,
            route: REQUIRE_TLS,
            weighted: NOT_WEIGHTED,
            named: None,
        }
    }

    pub(super) fn new(
        table: Arc<RouteTable>,
        vhost: u32,
        route: u32,
        head: &RequestHead,
        info: &StreamInfo,
        random: u64,
    ) -> Self {
        let mut this = Self {
            table,
            vhost,
            route,
            weighted: NOT_WEIGHTED,
            named: None,
        };
        if let Action::Forward(action) = &this.action {
            if let ClusterSpecifier::Weighted(w) = &action.cluster {
                let hash = w
                    .use_hash_policy
                    .then(|| action.hash_policy.hash(head, info, false).hash)
                    .flatten();
                this.weighted = w.pick(head, hash.unwrap_or(random));
            }
            this.named = match this.specifier() {
                Some(ClusterSpecifier::Header(name)) => {
                    let value = name.first(head).and_then(|v| std::str::from_utf8(v).ok());
                    Some(value.unwrap_or_default().into())
                }
                Some(ClusterSpecifier::Matcher(matcher)) => Some(matcher.find(head, info)),
                _ => None,
            };
        }
        this
    }

    /// The table it is of.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The virtual host.
    pub fn virtual_host(&self) -> &VirtualHost {
        // Indices come from `RouteTable::find` on this very table.
        &self.table.vhosts[self.vhost as usize]
    }

    /// The chosen weighted cluster, when the route has some.
    pub fn weighted_cluster(&self) -> Option<&ClusterWeight> {
        match &self.forward()?.cluster {
            ClusterSpecifier::Weighted(w) => w.clusters.get(self.weighted as usize),
            _ => None,
        }
    }

    /// How the cluster is named, after the weighted choice.
    fn specifier(&self) -> Option<&ClusterSpecifier> {
        let action = self.forward()?;
        Some(self.weighted_cluster().map_or(&action.cluster, |w| &w.cluster))
    }

    /// Name of the cluster the request goes to; empty when a header should have named it and does not, or when the
    /// route does not forward.
    pub fn cluster_name(&self) -> &str {
        match (&self.named, self.specifier()) {
            (Some(named), _) => named,
            (None, Some(ClusterSpecifier::Cluster(name))) => name,
            _ => "",
        }
    }

    /// Chooses the weighted cluster anew (`refresh_cluster_on_retry`): one of those that are not in `tried`, which are
    /// all of them again once each was tried. False when the route has no weighted clusters.
    pub fn choose_untried(&mut self, tried: &mut Vec<u32>, head: &RequestHead, random: u64) -> bool {
        let Some(ClusterSpecifier::Weighted(weighted)) = self.forward().map(|action| &action.cluster) else {
            return false;
        };
        tried.push(self.weighted);
        let chosen = weighted.pick_besides(tried, random).or_else(|| {
            tried.clear();
            weighted.pick_besides(tried, random)
        });
        let Some(chosen) = chosen else { return false };
        let named = match weighted.clusters.get(chosen as usize).map(|w| &w.cluster) {
            Some(ClusterSpecifier::Header(name)) => {
                let value = name.first(head).and_then(|v| std::str::from_utf8(v).ok());
                Some(value.unwrap_or_default().into())
            }
            _ => None,
        };
        self.weighted = chosen;
        self.named = named;
        true
    }

    /// `metadata_match` of the weighted cluster, or else of the route.
    pub fn metadata_match(&self) -> Option<&Arc<MetadataMatch>> {
        match self.weighted_cluster() {
            Some(weighted) => weighted.metadata_match.as_ref(),
            None => self.forward()?.metadata_match.as_ref(),
        }
    }

    /// The hash of the request by the route's hash policies; cookies that are missing are made.
    pub fn hash(&self, head: &RequestHead, info: &StreamInfo) -> HashOutcome {
        match self.forward() {
            Some(action) if !action.hash_policy.is_empty() => action.hash_policy.hash(head, info, true),
            _ => HashOutcome::default(),
        }
    }

    /// Mutations of all levels and the rewrites of host and path; called once, after the host was picked.
    /// `keep_original` sets `x-envoy-original-path` and `x-envoy-original-host` (`!suppress_envoy_headers`).
    pub fn finalize_request_headers(&self, head: &mut RequestHead, info: &StreamInfo, keep_original: bool) {
        let weighted = self.weighted_cluster();
        if let Some(weighted) = weighted {
            weighted.request.run(head, info);
            if let Some(host) = &weighted.host_rewrite {
                head.authority = Some(host.clone());
            }
        }
        for mutations in self.levels(&self.table.request, &self.virtual_host().request, &self.request) {
            mutations.run(head, info);
        }
        let Some(action) = self.forward() else {
            return;
        };
        if let Some(host) = action.host_rewrite.apply(head, info) {
            set_host(head, host, action.append_x_forwarded_host, keep_original);
        }
        if head.path.is_some()
            && let Some(path) = action.path_rewrite.apply(head, info, self.matched_len(head))
        {
            set_path(head, path, keep_original);
        }
    }

    /// `auto_host_rewrite`: sets the host to the upstream host's name, for each attempt; no effect when the
    /// route does not ask for it or `hostname` is empty.
    pub fn rewrite_host(&self, head: &mut RequestHead, hostname: &str, keep_original: bool) {
        if let Some(action) = self.forward().filter(|a| a.auto_host_rewrite && !hostname.is_empty())
            && let Ok(host) = HeaderValue::from_str(hostname)
        {
            set_host(head, host, action.append_x_forwarded_host, keep_original);
        }
    }

    /// Mutations of the response of all levels.
    pub fn finalize_response_headers(&self, head: &mut ResponseHead, request: Option<&RequestHead>, info: &StreamInfo) {
        // The redirect of `require_tls` is no route of the configuration.
        if self.route == REQUIRE_TLS {
            return;
        }
        if let Some(weighted) = self.weighted_cluster() {
            mutate_response(&weighted.response, head, request, info);
        }
        for mutations in self.levels(&self.table.response, &self.virtual_host().response, &self.response) {
            mutate_response(mutations, head, request, info);
        }
    }

    /// The `location` of a redirect; none when the action is no redirect.
    pub fn redirect_location(&self, head: &RequestHead, info: &StreamInfo) -> Option<HeaderValue> {
        match &self.action {
            Action::Redirect(redirect) => redirect.location(head, info, self.matched_len(head)),
            _ => None,
        }
    }

    /// Gives the request the path that its redirect leads to, as Envoy does before it answers; `keep_original` as in
    /// [`Self::finalize_request_headers`].
    pub fn rewrite_redirected(&self, head: &mut RequestHead, info: &StreamInfo, keep_original: bool) {
        if let Action::Redirect(redirect) = &self.action
            && let Some(path) = redirect.rewritten(head, info, self.matched_len(head))
        {
            set_path(head, path, keep_original);
        }
    }

    /// The first virtual cluster that matches, `other` when none does, none when there are none.
    pub fn virtual_cluster(&self, head: &RequestHead) -> Option<&EntryStats> {
        let virtual_host = self.virtual_host();
        let other = virtual_host.other_virtual_cluster.as_ref()?;
        let clusters = &virtual_host.virtual_clusters;
        let matched = clusters.iter().find(|c| c.headers.iter().all(|m| m.matches(head)));
        Some(matched.map_or(other, |c| &c.stats))
    }

    /// The most specific per-route configuration of the filter of this name: weighted cluster, route, virtual
    /// host, route configuration.
    pub fn filter_config(&self, filter: &str) -> Option<&RouteConfig> {
        self.filter_levels()
            .into_iter()
            .rev()
            .flatten()
            .find_map(|level| level.get(filter))
    }

    /// All configurations of the filter, least specific first, for filters that merge them.
    pub fn filter_configs_all(&self, filter: &str) -> impl Iterator<Item = &RouteConfig> {
        self.filter_levels()
            .into_iter()
            .flatten()
            .filter_map(move |level| level.get(filter))
    }

    /// Whether the filter is disabled (true) or enabled (false) here; none when no level says.
    pub fn filter_disabled(&self, filter: &str) -> Option<bool> {
        self.filter_levels()
            .into_iter()
            .rev()
            .flatten()
            .find_map(|level| level.disabled(filter))
    }

    /// Least specific first.
    fn filter_levels(&self) -> [Option<&super::PerFilterConfigs>; 4] {
        [
            Some(&self.table.filters),
            Some(&self.virtual_host().filters),
            Some(&self.filters),
            self.weighted_cluster().map(|w| &w.filters),
        ]
    }

    /// Mutations in the order they run: the last one wins.
    fn levels<'m>(
        &self,
        table: &'m HeaderMutations,
        vhost: &'m HeaderMutations,
        route: &'m HeaderMutations,
    ) -> [&'m HeaderMutations; 3] {
        if self.table.most_specific_header_mutations_wins {
            [table, vhost, route]
        } else {
            [route, vhost, table]
        }
    }

    /// How much of the path the route matched; filters may have changed the path since.
    fn matched_len(&self, head: &RequestHead) -> Option<usize> {
        self.matcher.path.matched_len(head, self.matcher.case_sensitive)
    }
}

impl Deref for RouteMatch {
    type Target = Route;

    fn deref(&self) -> &Route {
        let vhost = self.virtual_host();
        vhost
            .routes()
            .get(self.route as usize)
            .unwrap_or(&self.table.tls_redirect)
    }
}

fn mutate_response(
    mutations: &HeaderMutations,
    head: &mut ResponseHead,
    request: Option<&RequestHead>,
    info: &StreamInfo,
) {
    if mutations.is_empty() {
        return;
    }
    mutations.remove(&mut head.headers);
    let cx = FormatCx {
        request,
        response: Some(head),
        info,
    };
    mutations.evaluate(&head.headers, &cx).apply(&mut head.headers);
    inline_headers::join_response(&mut head.headers);
}
