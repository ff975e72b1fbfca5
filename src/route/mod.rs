//! Route tables: virtual host, route, action (`envoy.config.route.v3`).
//!
//! [`RouteTable::build`] makes one immutable table of a `RouteConfiguration`; [`RouteTable::find`] chooses a
//! route for a request and gives a [`RouteMatch`], which derefs to the [`Route`] and keeps the table alive.

mod action;
mod cluster;
mod cluster_plugin;
mod cors;
mod entry_stats;
mod filter_config;
mod hash_policy;
mod index;
mod matched;
mod mirror;
mod mutation;
mod mutation_list;
mod path;
mod path_template;
mod plugins;
pub mod rate_limit;
mod redirect;
mod retry;
mod rewrite;
mod route_entry;
mod routes;
mod scope;
mod table;
mod template;
mod virtual_host;

pub use action::{ConnectConfig, InternalRedirectPolicy, MaxStreamDuration, Priority, RouteAction, Timeouts};
pub use cluster::{ClusterSpecifier, ClusterWeight, MetadataMatch, WeightedClusters, lb_metadata};
pub use cluster_plugin::ClusterMatcher;
pub use cors::CorsPolicy;
pub use entry_stats::{EntryStats, RequestStats};
pub use filter_config::PerFilterConfigs;
pub use hash_policy::{HashOutcome, HashPolicies};
pub use matched::RouteMatch;
pub use mirror::MirrorPolicy;
pub use mutation::HeaderMutations;
pub use mutation_list::{HeaderMutationList, PreparedMutations};
pub use path_template::PathTemplate;
pub use plugins::{HostPredicate, PreviousPriorities, RedirectPredicate};
pub use redirect::RedirectAction;
pub use retry::{ResetHeader, RetryOn, RetryPolicy};
pub use route_entry::{Action, Decorator, DirectResponse, Matcher as RequestMatcher, Route, RouteTracing};
pub use scope::{ScopeKey, ScopeKeyBuilder};
pub use table::{RouteOutcome, RouteTable};
pub use virtual_host::{VirtualCluster, VirtualHost};

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
