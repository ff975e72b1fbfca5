//! One request, in Envoy's documented order.

use std::{ops::ControlFlow, pin::pin, rc::Rc, sync::Arc};

use http::{Method, StatusCode, Version, header};

use super::{
    HcmConfig,
    chain::FilterChainConfig,
    complete::{Active, CountedBody},
    connection::HcmConnection,
    host,
    mutate::{self, Given, X_FORWARDED_PROTO},
    overload,
    refuse::{refusal, reply_to},
    timers::{Timers, note_expiry},
    tracing, whole,
};
use crate::{
    http::{
        Body, BodyError, LocalReply, ResponseHead,
        codec::{CodecError, CodecRequest, StreamHandle, Upgrade},
        filter::{StreamCx, settle},
        inline_headers,
    },
    route::RouteTable,
    router::{self, InternalRedirect, Routed},
};

/// What the decoder side came to.
pub(super) enum Outcome {
    /// A response from the router.
    Routed(Box<Routed>),
    /// A response of our own.
    Reply(Box<LocalReply>),
}

/// Answers one request. Dropping the future completes the stream as cancelled by the client.
pub(super) async fn handle(hcm: Rc<HcmConnection>, request: CodecRequest) -> (ResponseHead, Body) {
    let CodecRequest {
        head,
        body,
        mut upgrade,
        header_bytes,
        scheme_given,
        handle,
    } = request;
    let mut active = Active::start(hcm, head, header_bytes, handle);
    if active.hcm.overload.is_some()
        && let Some(reply) = overload::refusal(&mut active)
    {
        // Its body is counted as far as it comes.
        drop(CountedBody::wrap(body, &active.cx.info, upgrade.is_some()));
        return active.respond(Outcome::Reply(reply)).await;
    }
    continue_at_once(&mut active);
    // What follows an upgrade belongs to the request, which ends with the connection.
    let mut body = CountedBody::wrap(body, &active.cx.info, upgrade.is_some());
    let mut first = true;
    loop {
        match serve(&mut active, body, upgrade.take(), scheme_given, first).await {
            ControlFlow::Break(mut outcome) => {
                // Whoever read the body may have been told first, and have given up for another reason.
                if let Some(fault) = active.handle.fault() {
                    outcome = Outcome::Reply(refusal(&mut active, fault));
                }
                return active.respond(outcome).await;
            }
            ControlFlow::Continue(redirect) => {
                (active, body) = recreate(active, redirect);
                first = false;
            }
        }
    }
}

/// Ends the stream that was redirected, and starts another with what the router made of its head.
fn recreate(mut old: Box<Active>, redirect: InternalRedirect) -> (Box<Active>, Body) {
    let bytes = old.cx.info.request_header_bytes;
    let mut active = Active::start(old.hcm.clone(), old.head.clone(), bytes, old.handle.clone());
    let (info, before) = (&mut active.cx.info, &mut old.cx.info);
    info.redirects = std::mem::take(&mut before.redirects);
    info.filter_state = std::mem::take(&mut before.filter_state);
    info.remote_address.clone_from(&before.remote_address);
    info.request_id.clone_from(&before.request_id);
    // The body counts again when it is read again.
    info.progress.bytes_received.set(before.progress.bytes_received.get());
    before.response_code = Some(redirect.status);
    before.response_code_details = Some("internal_redirect".into());
    old.ended = true;
    let body = CountedBody::wrap(redirect.body, &active.cx.info, false);
    (active, body)
}

/// A stream's outcome, or the request starts anew.
type Served = ControlFlow<Outcome, InternalRedirect>;

/// One stream up to its outcome. Headers are judged and changed the first time only, not after an internal redirect.
async fn serve(active: &mut Active, body: Body, upgrade: Option<Upgrade>, scheme_given: bool, first: bool) -> Served {
    let table = match admit(active, scheme_given, first) {
        Ok(table) => table,
        // What is left of the request is read and dropped by the codec, or ends the connection.
        Err(reply) => {
            early_route(active);
            return ControlFlow::Break(Outcome::Reply(reply));
        }
    };
    // A route may replace the timers.
    active.cx.choose_route(&active.head, table.as_ref());
    if first {
        tracing::decide(active);
    }
    tracing::start(active);
    let timers = Timers::of(active);
    active.ends_at = timers.end();
    if active.hcm.config.log_moments.new_request {
        active.log("DownstreamStart");
    }
    let handle = active.handle.clone();
    let progress = active.cx.info.progress.clone();
    let ended = {
        // Pinned where it is made: `select!` would move kilobytes of it.
        let mut running = pin!(run(active, table, body, upgrade));
        let mut expired = pin!(timers.expire());
        tokio::select! {
            biased;
            reply = progress.interrupt.wait() => Ok(ControlFlow::Break(Outcome::Reply(reply))),
            fault = faulty(&handle) => Ok(ControlFlow::Break(Outcome::Reply(Box::new(reply_to(fault))))),
            outcome = running.as_mut() => Ok(outcome),
            reply = expired.as_mut() => Err(reply),
        }
    };
    ended.unwrap_or_else(|reply| {
        note_expiry(active, &reply);
        ControlFlow::Break(Outcome::Reply(reply))
    })
}

/// As in Envoy, a request that is refused early has the route that it would have had, if its client has said by
/// `x-forwarded-proto` what routes ask for.
pub(super) fn early_route(active: &mut Active) {
    if active.head.headers.contains_key(X_FORWARDED_PROTO) {
        let table = active.hcm.config.routes.load(&active.head);
        active.cx.choose_route(&active.head, table.as_ref());
    }
}

/// Ready when the request's body broke the protocol. Polled on the connection's task, which is woken then.
async fn faulty(handle: &StreamHandle) -> CodecError {
    std::future::poll_fn(|_| match handle.fault() {
        Some(fault) => std::task::Poll::Ready(fault),
        None => std::task::Poll::Pending,
    })
    .await
}

/// `Expect: 100-continue` is answered before anything else is known of the request.
fn continue_at_once(active: &mut Active) {
    let head = &mut active.head;
    if active.hcm.config.proxy_100_continue {
        return;
    }
    let mut expect = head.headers.get_all(header::EXPECT).iter();
    if let (Some(one), None) = (expect.next(), expect.next())
        && one.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        head.headers.remove(header::EXPECT);
        active.cx.informational.go_on();
    }
}

/// Steps 1 to 8: what must hold before a route is looked for. Returns the route table of the stream's life.
fn admit(active: &mut Active, scheme_given: bool, first: bool) -> Result<Option<Arc<RouteTable>>, Box<LocalReply>> {
    let hcm = active.hcm.clone();
    let config = &hcm.config;
    let head = &mut active.head;
    if head.version == Version::HTTP_2 {
        mutate::join_cookies(&mut head.headers);
    }
    inline_headers::join_request(&mut head.headers);
    active.grpc = head.is_grpc();
    let table = config.routes.load(head);

    if head.version < Version::HTTP_11 && head.authority.is_none() {
        head.authority.clone_from(&config.default_host);
    }
    if head.authority.is_none() {
        return Err(bad_request("missing_host_header"));
    }
    if head.method.as_str() == "QUERY" && !head.headers.contains_key(header::CONTENT_TYPE) {
        return Err(bad_request("query_missing_content_type"));
    }
    let head = &mut active.head;
    if head.method != Method::CONNECT {
        match head.path.as_ref() {
            None => {
                return Err(Box::new(LocalReply::new(
                    StatusCode::NOT_FOUND,
                    "",
                    "missing_path_header",
                )));
            }
            Some(p) if !p.as_str().starts_with('/') => {
                hcm.stats().downstream_rq_non_relative_path.inc();
                return Err(Box::new(LocalReply::new(
                    StatusCode::NOT_FOUND,
                    "",
                    "absolute_path_rejected",
                )));
            }
            Some(_) => {}
        }
    }
    config.path.apply(head, hcm.stats())?;
    if let Some(port) = host::normalize(head, config, hcm.info.local_address.port()) {
        active.connect_port = Some(port);
    }
    if !first {
        return Ok(table);
    }
    for mutations in &config.early_mutations {
        mutations.apply_to_request(head, &active.cx.info);
    }
    active.upgrade = mutate::is_upgrade(&head.headers).then(|| {
        head.headers
            .get(http::header::UPGRADE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase()
    });
    if head.method == Method::CONNECT {
        active.upgrade = Some(
            head.protocol
                .as_ref()
                .map_or_else(|| "connect".to_owned(), |p| p.to_ascii_lowercase()),
        );
    }
    let given = Given {
        upgrade: active.upgrade.is_some(),
        scheme: scheme_given,
    };
    mutate::request(head, &mut active.cx.info, config, given)
        .inspect_err(|_| hcm.stats().downstream_rq_rejected_via_ip_detection.inc())?;
    if !mutate::is_marked_internal(&head.headers)
        && let Some(table) = &table
    {
        for name in &table.internal_only_headers {
            head.headers.remove(name);
        }
    }
    active.grpc = head.is_grpc();
    Ok(table)
}

/// Ends an HTTP/1 connection, too, unless the configuration is lenient.
fn bad_request(details: &'static str) -> Box<LocalReply> {
    Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "", details))
}

/// Steps 9 to 12: route, filter chain, filters, router.
async fn run(
    active: &mut Active,
    mut table: Option<Arc<RouteTable>>,
    mut body: Body,
    upgrade: Option<Upgrade>,
) -> Served {
    let config = active.hcm.config.clone();
    let chain: &FilterChainConfig = match active.upgrade.clone() {
        None => &config.chain,
        Some(kind) => match upgrade_chain(active, &kind, &config) {
            Ok(Some(chain)) => {
                active.hcm.stats().downstream_cx_upgrades_total.inc();
                chain
            }
            // Nothing forbids it, for there is no route: the router has the answer.
            Ok(None) => &config.chain,
            Err(reply) => {
                active.close = true;
                active.handle.drain_if(|| true);
                return ControlFlow::Break(Outcome::Reply(reply));
            }
        },
    };
    create_filters(active, chain);
    if active.cx.route.is_none() {
        active.cx.on_demand_routes = config.routes.on_demand();
    }

    // The filters before this one have their hands on the body already.
    let mut wrapped = 0;
    for i in 0..active.filters.len() {
        let Some((name, filter)) = active.filters.get_mut(i) else {
            break;
        };
        active.cx.filter_name = name.clone();
        let end = matches!(body, Body::Empty);
        if let Some(reply) = settle(filter.request_headers(&mut active.cx, &mut active.head, end)).await {
            return ControlFlow::Break(Outcome::Reply(reply));
        }
        let (takes, limit) = (filter.takes_request(), filter.buffer_request());
        if takes || limit.is_some() {
            body = wrap(active, &mut wrapped, i, body);
        }
        if takes && let Err(reply) = taken(active, i, &mut body).await {
            return ControlFlow::Break(Outcome::Reply(reply));
        }
        if let Some(limit) = limit {
            match buffered(active, i, body, limit).await {
                Ok(whole) => body = whole,
                Err(reply) => return ControlFlow::Break(Outcome::Reply(reply)),
            }
        }
        if let Some(newer) = active.cx.newer_routes.take() {
            table = Some(newer);
        }
        if std::mem::take(&mut active.cx.clear_route_cache) {
            active.cx.choose_route(&active.head, table.as_ref());
        }
    }
    let all = active.filters.len();
    body = wrap(active, &mut wrapped, all, body);
    if let Some(port) = active.connect_port {
        host::restore_port(&mut active.head, port);
    }
    let tunnel = active.upgrade.is_some().then_some(upgrade).flatten();
    match router::run(&chain.router, &mut active.cx, &mut active.head, body, tunnel).await {
        Ok(router::Outcome::Response(routed)) => ControlFlow::Break(Outcome::Routed(routed)),
        Ok(router::Outcome::Redirect(redirect)) => ControlFlow::Continue(redirect),
        Err(reply) => ControlFlow::Break(Outcome::Reply(reply)),
    }
}

/// The filter chain of an upgrade: allowed by the route, or else by the connection manager. None: there is no route
/// that could forbid it. The reply refuses it.
fn upgrade_chain<'a>(
    active: &Active,
    kind: &str,
    config: &'a HcmConfig,
) -> Result<Option<&'a FilterChainConfig>, Box<LocalReply>> {
    if active.cx.route.is_none() && active.head.method == Method::CONNECT {
        return Ok(None);
    }
    let configured = config.upgrades.iter().find(|u| u.kind == kind);
    let by_route = active
        .cx
        .route
        .as_ref()
        .and_then(|r| r.forward())
        .and_then(|a| a.upgrade(kind));
    if !by_route.unwrap_or(configured.is_some_and(|u| u.enabled)) {
        if active.cx.route.is_none() {
            return Ok(None);
        }
        active.hcm.stats().downstream_rq_ws_on_non_ws_route.inc();
        return Err(Box::new(LocalReply::new(StatusCode::FORBIDDEN, "", "upgrade_failed")));
    }
    Ok(Some(configured.and_then(|u| u.chain.as_ref()).unwrap_or(&config.chain)))
}

fn create_filters(active: &mut Active, chain: &FilterChainConfig) {
    let route = active.cx.route.clone();
    for entry in &chain.filters {
        let disabled = route
            .as_ref()
            .and_then(|r| r.filter_disabled(&entry.name))
            .unwrap_or(entry.disabled);
        if disabled {
            continue;
        }
        let cx = StreamCx {
            worker: &active.cx.worker,
            filter_name: &entry.name,
        };
        if let Some(filter) = entry.config.create(&cx) {
            active.filters.push((entry.name.clone(), filter));
        }
    }
}

/// Lets the filters before `until` wrap the body that have not yet.
fn wrap(active: &mut Active, wrapped: &mut usize, until: usize, mut body: Body) -> Body {
    let running = active.cx.filter_name.clone();
    for (name, filter) in active.filters.iter_mut().take(until).skip(*wrapped) {
        if matches!(body, Body::Empty) {
            break;
        }
        active.cx.filter_name = name.clone();
        body = filter.request_body(&mut active.cx, body);
    }
    *wrapped = until;
    active.cx.filter_name = running;
    body
}

/// Leaves the body to a filter that takes it.
async fn taken(active: &mut Active, index: usize, body: &mut Body) -> Result<(), Box<LocalReply>> {
    let Some((_, filter)) = active.filters.get_mut(index) else {
        return Ok(());
    };
    let Some(reply) = settle(filter.request_taken(&mut active.cx, &mut active.head, body)).await else {
        return Ok(());
    };
    if reply.status == StatusCode::PAYLOAD_TOO_LARGE {
        active.hcm.stats().downstream_rq_too_large.inc();
        // The rest of the request is not waited for.
        active.close |= active.head.version < Version::HTTP_2;
    }
    Err(reply)
}

/// Reads the whole body for a filter that wants it, and lets the filter see it.
async fn buffered(active: &mut Active, index: usize, body: Body, limit: u64) -> Result<Body, Box<LocalReply>> {
    // As in Envoy, where a frame of HTTP/2 that is all of the body is never kept.
    let frame_free = active.head.version >= Version::HTTP_2;
    let (mut bytes, trailers) = match whole::read_frames(body, limit, frame_free).await {
        Ok(read) => read,
        Err(BodyError::TooLarge { .. }) => {
            active.hcm.stats().downstream_rq_too_large.inc();
            // The rest of the request is not waited for.
            active.close |= active.head.version < Version::HTTP_2;
            return Err(Box::new(LocalReply::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Payload Too Large",
                "request_payload_too_large",
            )));
        }
        Err(_) => {
            return Err(Box::new(LocalReply::new(
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.codec_error",
            )));
        }
    };
    if let Some((_, filter)) = active.filters.get_mut(index)
        && let Some(reply) = settle(filter.request_buffered(&mut active.cx, &mut active.head, &mut bytes)).await
    {
        return Err(reply);
    }
    Ok(whole::join(bytes, trailers))
}
