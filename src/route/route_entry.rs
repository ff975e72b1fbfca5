//! One route: what it matches and what it does.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use xds_protos::envoy::{config::core::v3::Metadata, r#type::tracing::v3::CustomTag};

use super::{HeaderMutations, PerFilterConfigs, RedirectAction, RouteAction};
use crate::config::FractionalPercent;

/// One route of a virtual host.
#[derive(Debug)]
pub struct Route {
    /// `name`: `%ROUTE_NAME%`; empty for none.
    pub name: Arc<str>,
    /// What is done.
    pub action: Action,
    /// `metadata`
    pub metadata: Option<Arc<Metadata>>,
    /// `decorator`: the span's name.
    pub decorator: Option<Decorator>,
    /// `tracing`: sampling and tags.
    pub tracing: Option<RouteTracing>,
    /// `stat_prefix`: statistics under `vhost.<name>.route.<prefix>.`
    pub stat_prefix: Option<Arc<str>>,
    /// Bytes of request body kept for retries and mirrors, of the route or else of the virtual host;
    /// none: the connection's limit alone.
    pub request_body_buffer_limit: Option<u64>,
    /// Header mutations of the request on this level.
    pub request: HeaderMutations,
    /// Header mutations of the response on this level.
    pub response: HeaderMutations,
    /// Per-filter configuration on this level.
    pub filters: PerFilterConfigs,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Forwards to a cluster.
    Forward(Box<RouteAction>),
    /// Redirects; [`RouteMatch::redirect_location`](super::RouteMatch::redirect_location) has the target.
    Redirect(Box<RedirectAction>),
    /// Answers.
    DirectResponse(Box<DirectResponse>),
    /// Matches, and leaves the answer to a filter (`NonForwardingAction`, `FilterAction`).
    NonForwarding,
}

impl Route {
    /// The action when it forwards.
    pub fn forward(&self) -> Option<&RouteAction> {
        match &self.action {
            Action::Forward(a) => Some(a),
            _ => None,
        }
    }
}

/// `DirectResponseAction`
#[derive(Debug, Clone)]
pub struct DirectResponse {
    /// Status.
    pub status: StatusCode,
    /// Body, at most `max_direct_response_body_size_bytes`.
    pub body: Bytes,
    /// `body_format`: replaces the body by a formatted text in which the body is `%LOCAL_REPLY_BODY%`.
    pub format: Option<crate::formatter::Format>,
}

/// `Decorator`
#[derive(Debug, Clone)]
pub struct Decorator {
    /// Name of the span.
    pub operation: Arc<str>,
    /// Whether the name goes to the client and upstream (`x-envoy-decorator-operation`); default true.
    pub propagate: bool,
}

/// `Tracing`
#[derive(Debug, Clone)]
pub struct RouteTracing {
    /// Share of requests traced for `x-client-trace-id`; default all.
    pub client_sampling: FractionalPercent,
    /// Share of requests traced at random; default all.
    pub random_sampling: FractionalPercent,
    /// Upper bound of both; default all.
    pub overall_sampling: FractionalPercent,
    /// Tags, as they came.
    pub custom_tags: Vec<CustomTag>,
    /// Format of the span's name; empty for none.
    pub operation: String,
    /// Format of the upstream span's name; empty for none.
    pub upstream_operation: String,
}
