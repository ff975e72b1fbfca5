//! The table: a `RouteConfiguration`, built.

use std::sync::Arc;

use xds_protos::envoy::config::route::v3::RouteConfiguration;

use super::{HeaderMutations, PerFilterConfigs, RouteMatch, VirtualHost};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, StreamInfo},
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
    /// `internal_only_headers`, lower-case: taken off external requests.
    pub internal_only_headers: Vec<http::HeaderName>,
    /// `most_specific_header_mutations_wins`
    pub most_specific_header_mutations_wins: bool,
    pub(super) vhosts: Vec<VirtualHost>,
    pub(super) request: HeaderMutations,
    pub(super) response: HeaderMutations,
    pub(super) filters: PerFilterConfigs,
}

impl RouteTable {
    /// Builds the table. Errors are in Envoy's words where Envoy has some.
    pub fn build(_proto: RouteConfiguration, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        Err(cx.error("route tables are not built yet"))
    }

    /// Chooses a route. `random` is the stream's random number: runtime fractions and weighted clusters use it.
    pub fn find(self: &Arc<Self>, _head: &RequestHead, _info: &StreamInfo, _random: u64) -> RouteOutcome {
        RouteOutcome::NoRoute
    }

    /// The virtual hosts, in order.
    pub fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.vhosts
    }
}
