//! One route: what it matches and what it does.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use xds_protos::envoy::config::{
    core::v3::Metadata,
    route::v3::{
        Decorator as ProtoDecorator, DirectResponseAction, Route as Proto, RouteMatch as ProtoMatch,
        Tracing as ProtoTracing, route,
        route_match::{PathSpecifier, TlsContextMatchOptions},
    },
};

use super::{
    ClusterSpecifier, EntryStats, HeaderMutations, PerFilterConfigs, RedirectAction, RouteAction,
    action::Inherited,
    cluster_plugin::Plugins,
    path::{PathMatch, PathView},
    path_template::PathTemplate,
};
use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent, fraction, read_data_source},
    formatter::Format,
    http::{RequestHead, StreamInfo},
    matching::{
        CookieMatcher, FilterStateMatcher, HeaderMatcher, MetadataMatcher, QueryParameterMatcher, RegexMatcher,
    },
    runtime::RuntimeFractionalPercent,
    tracing::CustomTag,
};

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
    /// Statistics under its `stat_prefix`, when it has one.
    pub stats: Option<EntryStats>,
    /// Bytes of request body kept for retries and mirrors, of the route or else of the virtual host;
    /// none: the connection's limit alone.
    pub request_body_buffer_limit: Option<u64>,
    /// Header mutations of the request on this level.
    pub request: HeaderMutations,
    /// Header mutations of the response on this level.
    pub response: HeaderMutations,
    /// Per-filter configuration on this level.
    pub filters: PerFilterConfigs,
    pub(super) matcher: Matcher,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Forwards to a cluster; `NonForwardingAction` and `FilterAction` to one without a name, which is not found: a
    /// filter has to answer.
    Forward(Box<RouteAction>),
    /// Redirects; [`RouteMatch::redirect_location`](super::RouteMatch::redirect_location) has the target.
    Redirect(Box<RedirectAction>),
    /// Answers.
    DirectResponse(Box<DirectResponse>),
}

/// `DirectResponseAction`
#[derive(Debug, Clone)]
pub struct DirectResponse {
    /// Status.
    pub status: StatusCode,
    /// Body, at most `max_direct_response_body_size_bytes`.
    pub body: Bytes,
    /// `body_format`: replaces the body by a formatted text in which the body is `%LOCAL_REPLY_BODY%`.
    pub format: Option<Format>,
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
    /// Tags, which come before those of the connection manager.
    pub custom_tags: Vec<CustomTag>,
    /// The span's name.
    pub operation: Option<Format>,
    /// The name of an attempt's span.
    pub upstream_operation: Option<Format>,
}

/// `RouteMatch`, built: everything in it must hold.
#[derive(Debug)]
pub struct Matcher {
    pub(super) path: PathMatch,
    pub(super) case_sensitive: bool,
    /// The route's cluster specifier is one that is not known, and need not be.
    never: bool,
    fraction: Option<RuntimeFractionalPercent>,
    grpc: bool,
    headers: Box<[HeaderMatcher]>,
    query: Box<[QueryParameterMatcher]>,
    cookies: Box<[CookieMatcher]>,
    tls: Option<(Option<bool>, Option<bool>)>,
    metadata: Box<[MetadataMatcher]>,
    filter_state: Box<[FilterStateMatcher]>,
}

/// Limits and inheritance a route is built with.
pub(super) struct RouteCx<'a> {
    pub(super) inherited: &'a Inherited,
    pub(super) plugins: &'a Plugins,
    pub(super) virtual_host: &'a str,
    pub(super) max_body: usize,
}

impl Route {
    /// The action when it forwards.
    pub fn forward(&self) -> Option<&RouteAction> {
        match &self.action {
            Action::Forward(a) => Some(a),
            _ => None,
        }
    }

    /// The route of requests that `require_tls` sends to https.
    pub(super) fn require_tls() -> Self {
        Self {
            name: "".into(),
            action: Action::Redirect(Box::new(RedirectAction::require_tls())),
            metadata: None,
            decorator: None,
            tracing: None,
            stats: None,
            request_body_buffer_limit: None,
            request: HeaderMutations::default(),
            response: HeaderMutations::default(),
            filters: PerFilterConfigs::default(),
            matcher: Matcher::any(),
        }
    }

    pub(super) fn build(proto: Proto, with: &RouteCx<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                name, r#match, metadata, decorator, typed_per_filter_config, request_headers_to_add,
                request_headers_to_remove, response_headers_to_add, response_headers_to_remove, tracing,
                per_request_buffer_limit_bytes, stat_prefix, request_body_buffer_limit, action,
            }
            rejected { route_specifiers: "no route specifier extension is built in" }
        });
        let mut matcher = match r#match {
            Some(m) => cx.field("match", |cx| Matcher::build(m, cx))?,
            None => return Err(cx.error_at("match", "value is required")),
        };
        let action = match action {
            Some(route::Action::Route(a)) => Action::Forward(Box::new(
                cx.field("route", |cx| RouteAction::build(a, &name, &matcher.path, with, cx))?,
            )),
            Some(route::Action::Redirect(a)) => {
                Action::Redirect(Box::new(cx.field("redirect", |cx| RedirectAction::build(a, cx))?))
            }
            Some(route::Action::DirectResponse(a)) => Action::DirectResponse(Box::new(
                cx.field("direct_response", |cx| DirectResponse::build(a, with.max_body, cx))?,
            )),
            Some(route::Action::NonForwardingAction(_) | route::Action::FilterAction(_)) => {
                Action::Forward(Box::new(RouteAction::non_forwarding(with, cx)?))
            }
            None => return Err(cx.error_at("action", "value is required")),
        };
        if let Action::Forward(forward) = &action {
            matcher.never = matches!(forward.cluster, ClusterSpecifier::Never);
        }
        let request_fields = ("request_headers_to_add", "request_headers_to_remove");
        let response_fields = ("response_headers_to_add", "response_headers_to_remove");
        Ok(Self {
            action,
            metadata: metadata.map(Arc::new),
            decorator: cx.opt("decorator", decorator, Decorator::build)?,
            tracing: cx.opt("tracing", tracing, RouteTracing::build)?,
            stats: (!stat_prefix.is_empty()).then(|| EntryStats::new(with.virtual_host, "route", &stat_prefix, cx)),
            request_body_buffer_limit: buffer_limit(request_body_buffer_limit, per_request_buffer_limit_bytes)
                .or(with.inherited.request_body_buffer_limit),
            request: HeaderMutations::build(request_fields, request_headers_to_add, request_headers_to_remove, cx)?,
            response: HeaderMutations::build(response_fields, response_headers_to_add, response_headers_to_remove, cx)?,
            filters: PerFilterConfigs::build(typed_per_filter_config, cx)?,
            matcher,
            name: name.into(),
        })
    }
}

/// `request_body_buffer_limit`, or the older `per_request_buffer_limit_bytes`.
pub(super) fn buffer_limit(
    body: Option<xds_protos::google::protobuf::UInt64Value>,
    older: Option<xds_protos::google::protobuf::UInt32Value>,
) -> Option<u64> {
    body.map(|v| v.value).or(older.map(|v| u64::from(v.value)))
}

impl Matcher {
    fn any() -> Self {
        Self {
            path: PathMatch::Prefix(String::new()),
            case_sensitive: true,
            never: false,
            fraction: None,
            grpc: false,
            headers: Box::default(),
            query: Box::default(),
            cookies: Box::default(),
            tls: None,
            metadata: Box::default(),
            filter_state: Box::default(),
        }
    }

    /// Builds the matcher; a field it does not know is refused.
    pub fn build(proto: ProtoMatch, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoMatch {
            supported {
                case_sensitive, runtime_fraction, headers, query_parameters, cookies, grpc, tls_context,
                dynamic_metadata, filter_state, path_specifier,
            }
        });
        let path = match path_specifier {
            Some(PathSpecifier::Prefix(p)) => PathMatch::Prefix(p),
            Some(PathSpecifier::Path(p)) => PathMatch::Exact(p),
            Some(PathSpecifier::PathSeparatedPrefix(p)) => PathMatch::Separated(p),
            Some(PathSpecifier::SafeRegex(r)) => {
                PathMatch::Regex(cx.field("safe_regex", |cx| RegexMatcher::build(r, cx))?)
            }
            Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
            Some(PathSpecifier::PathMatchPolicy(p)) => {
                PathMatch::Template(cx.field("path_match_policy", |cx| PathTemplate::build(p, cx))?)
            }
            None => return Err(cx.error_at("path_specifier", "value is required")),
        };
        Ok(Self {
            path,
            case_sensitive: case_sensitive.is_none_or(|b| b.value),
            never: false,
            fraction: cx.opt("runtime_fraction", runtime_fraction, RuntimeFractionalPercent::build)?,
            grpc: grpc.is_some(),
            headers: cx.each("headers", headers, HeaderMatcher::build)?.into(),
            query: cx
                .each("query_parameters", query_parameters, QueryParameterMatcher::build)?
                .into(),
            cookies: cx.each("cookies", cookies, CookieMatcher::build)?.into(),
            tls: tls_context.map(|proto| {
                coverage!(cx, proto => TlsContextMatchOptions { supported { presented, validated } });
                (presented.map(|b| b.value), validated.map(|b| b.value))
            }),
            metadata: cx
                .each("dynamic_metadata", dynamic_metadata, MetadataMatcher::build)?
                .into(),
            filter_state: cx.each("filter_state", filter_state, FilterStateMatcher::build)?.into(),
        })
    }

    /// Whether a request matches. The path comes first because it decides most often.
    pub fn matches(&self, head: &RequestHead, info: &StreamInfo, random: u64, ignore_parameters: bool) -> bool {
        self.matches_path(&PathView::new(head, ignore_parameters), head, info, random)
    }

    /// The same for a path that was looked at already.
    pub(super) fn matches_path(&self, path: &PathView<'_>, head: &RequestHead, info: &StreamInfo, random: u64) -> bool {
        !self.never && self.path.matches(path, head, self.case_sensitive) && self.matches_rest(head, info, random)
    }

    fn matches_rest(&self, head: &RequestHead, info: &StreamInfo, random: u64) -> bool {
        self.fraction.as_ref().is_none_or(|f| f.hit(random))
            && (!self.grpc || head.is_grpc())
            && self.headers.iter().all(|m| m.matches(head))
            && (self.query.is_empty() || self.query.iter().all(|m| m.matches(head.query())))
            && self.cookies.iter().all(|m| m.matches(head))
            && self.tls.is_none_or(|tls| tls_matches(tls, info))
            && self.metadata.iter().all(|m| m.matches_dynamic(info))
            && self.filter_state.iter().all(|m| m.matches(info))
    }
}

fn tls_matches((presented, validated): (Option<bool>, Option<bool>), info: &StreamInfo) -> bool {
    let tls = info.connection.tls.as_ref();
    presented.is_none_or(|want| want == tls.is_some_and(|t| t.peer_presented))
        && validated.is_none_or(|want| want == tls.is_some_and(|t| t.peer_validated))
}

impl DirectResponse {
    fn build(proto: DirectResponseAction, max_body: usize, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => DirectResponseAction { supported { status, body, body_format } });
        let status = u16::try_from(status)
            .ok()
            .and_then(|s| StatusCode::from_u16(s).ok())
            .ok_or_else(|| cx.error_at("status", format!("invalid status {status}")))?;
        let body = cx.opt("body", body, read_data_source)?.unwrap_or_default();
        if body.len() > max_body {
            return Err(cx.error_at(
                "body",
                format!("response body size is {} bytes; maximum is {max_body}", body.len()),
            ));
        }
        Ok(Self {
            status,
            body: body.into(),
            format: cx.opt("body_format", body_format, Format::build)?,
        })
    }
}

impl Decorator {
    fn build(proto: ProtoDecorator, _cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(_cx, proto => ProtoDecorator { supported { operation, propagate } });
        Ok(Self {
            operation: operation.into(),
            propagate: propagate.is_none_or(|b| b.value),
        })
    }
}

impl RouteTracing {
    fn build(proto: ProtoTracing, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => ProtoTracing {
            supported {
                client_sampling, random_sampling, overall_sampling, custom_tags, operation, upstream_operation,
            }
        });
        let share = |p: Option<_>| p.as_ref().map_or(FractionalPercent::FULL, fraction);
        let custom_tags = cx.each("custom_tags", custom_tags, CustomTag::build)?;
        let mut format = |name: &str, text: String| match text.is_empty() {
            true => Ok(None),
            false => cx.field(name, |cx| Format::parse_omit_empty(&text, cx).map(Some)),
        };
        Ok(Self {
            client_sampling: share(client_sampling),
            random_sampling: share(random_sampling),
            overall_sampling: share(overall_sampling),
            custom_tags,
            operation: format("operation", operation)?,
            upstream_operation: format("upstream_operation", upstream_operation)?,
        })
    }
}
