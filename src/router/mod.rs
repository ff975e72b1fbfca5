//! The router (`envoy.filters.http.router`): the terminal filter.
//!
//! [`run`] keeps Envoy's order: route, direct answers, cluster, timeouts, then attempts until one
//! counts. What goes wrong on the way is one row of [`failure`]'s table.

mod attempt;
mod body;
mod by_name;
mod charge;
mod config;
mod failure;
mod forward;
mod headers;
mod hedge;
mod load_report;
mod mirror;
mod number;
mod periodic;
mod redirect;
mod replay;
mod request;
mod retry;
mod span;
mod terminate;
mod timeout;
mod timing;
mod transport;
mod tunnel;
mod upstream_filters;
mod upstream_log;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};

pub use config::RouterConfig;
pub use redirect::InternalRedirect;
pub use tunnel::Tunnel;

use crate::{
    formatter::FormatCx,
    http::{Body, Flag, LocalReply, RequestHead, ResponseHead, codec::Upgrade, filter::FilterCx},
    route::{Action, DirectResponse, RouteMatch},
};

/// A response on its way back.
pub struct Routed {
    /// Its head, with the route's mutations.
    pub head: ResponseHead,
    /// Its body.
    pub body: Body,
    /// The upstream's side of an upgrade that it accepted.
    pub tunnel: Option<Tunnel>,
}

/// What became of a request that was forwarded.
pub enum Outcome {
    /// The upstream's response.
    Response(Box<Routed>),
    /// The upstream redirected it, and the route says that this is followed here: the request starts anew.
    Redirect(InternalRedirect),
}

/// Routes one request. The reply is what the proxy answers by itself.
pub async fn run(
    config: &Arc<RouterConfig>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    body: Body,
    upgrade: Option<Upgrade>,
) -> Result<Outcome, Box<LocalReply>> {
    let stats = config.stats.local();
    stats.rq_total.inc();
    let Some(route) = cx.route.clone() else {
        stats.no_route.inc();
        return Err(Box::new(
            LocalReply::new(StatusCode::NOT_FOUND, "", "route_not_found").flag(Flag::NoRouteFound),
        ));
    };
    match &route.action {
        Action::Redirect(redirect) => {
            // As Envoy, which keeps `rq_redirect` at zero.
            stats.rq_direct_response.inc();
            let mut reply = LocalReply::new(redirect.status, "", "direct_response");
            cx.info.response_code_details = Some(reply.details.clone());
            if let Some(location) = route.redirect_location(head, &cx.info) {
                reply.headers.insert(header::LOCATION, location);
            }
            route.rewrite_redirected(head, &cx.info, !config.suppress_envoy_headers);
            finalize(&route, &mut reply, head, cx);
            Err(Box::new(reply))
        }
        Action::DirectResponse(direct) => {
            stats.rq_direct_response.inc();
            Err(Box::new(direct_response(&route, direct, head, cx)))
        }
        Action::Forward(action) => forward::forward(config, cx, head, body, upgrade, &route, action).await,
    }
}

fn direct_response(route: &RouteMatch, direct: &DirectResponse, head: &RequestHead, cx: &mut FilterCx) -> LocalReply {
    let mut reply = LocalReply::new(direct.status, direct.body.clone(), "direct_response");
    cx.info.response_code_details = Some(reply.details.clone());
    cx.info.local_reply_body = Some(direct.body.clone());
    if let Some(format) = &direct.format {
        let mut out = Vec::new();
        format.write(
            &mut out,
            &FormatCx {
                request: Some(head),
                response: None,
                info: &cx.info,
            },
        );
        reply.body = out.into();
        if let Ok(kind) = HeaderValue::from_str(format.content_type()) {
            reply.headers.insert(header::CONTENT_TYPE, kind);
        }
    }
    if (direct.status == StatusCode::CREATED || direct.status.is_redirection())
        && let Some(location) = own_location(head)
    {
        reply.headers.insert(header::LOCATION, location);
    }
    finalize(route, &mut reply, head, cx);
    reply
}

/// Where the request itself went: what a direct response of 201 or 3xx names as its location.
fn own_location(head: &RequestHead) -> Option<HeaderValue> {
    let path = head.path.as_ref()?.as_str();
    HeaderValue::try_from(format!("{}://{}{path}", head.scheme.as_str(), head.host())).ok()
}

/// Lets the route's response mutations at the reply's headers.
fn finalize(route: &RouteMatch, reply: &mut LocalReply, head: &RequestHead, cx: &FilterCx) {
    let mut response = ResponseHead::new(reply.status);
    std::mem::swap(&mut response.headers, &mut reply.headers);
    route.finalize_response_headers(&mut response, Some(head), &cx.info);
    reply.headers = response.headers;
}
