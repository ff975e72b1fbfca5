//! The way back: local replies, encoder filters, response headers, and the body's last wrapper.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::ServerHeaderTransformation as ServerHeader;

use super::{
    complete::{Active, EdgeBody},
    mutate,
    request::Outcome,
    request_id::X_REQUEST_ID,
    stats::count_response,
    tracing, whole,
};
use crate::{
    http::{Body, Flag, LocalReply, ResponseHead, codec::Handler, filter::settle, inline_headers},
    net::{Deadline, FirstToEnd},
    router::Tunnel,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

impl Active {
    /// Sends the outcome back through the encoder filters.
    pub(super) async fn respond(mut self: Box<Self>, outcome: Outcome) -> (ResponseHead, Body) {
        let (mut head, mut body, mut tunnel) = match outcome {
            Outcome::Routed(mut routed) => {
                inline_headers::join_response(&mut routed.head.headers);
                (routed.head, routed.body, routed.tunnel)
            }
            Outcome::Reply(reply) => {
                let (head, body) = self.local_reply(*reply);
                let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                if bodiless && !self.head_request && self.head.version < Version::HTTP_2 {
                    // The codec does not read such a body, but it counts as sent, as in Envoy.
                    let length = http_body::Body::size_hint(&body).exact().unwrap_or_default();
                    self.cx.info.progress.bytes_sent.set(length);
                }
                (head, body, None)
            }
        };
        let mut replied = false;
        for i in (0..self.filters.len()).rev() {
            let end = matches!(body, Body::Empty);
            let this = &mut *self;
            let Some((name, filter)) = this.filters.get_mut(i) else {
                break;
            };
            this.cx.filter_name = name.clone();
            let mut reply = settle(filter.response_headers(&mut this.cx, &this.head, &mut head, end)).await;
            if let (None, Some(limit)) = (&reply, filter.buffer_response()) {
                reply = match whole::read(std::mem::take(&mut body), limit).await {
                    Ok((mut bytes, trailers)) => {
                        let reply = settle(filter.response_buffered(&mut this.cx, &mut head, &mut bytes)).await;
                        body = whole::join(bytes, trailers);
                        reply
                    }
                    Err(_) => Some(self.unreadable()),
                };
            }
            if let (None, Some((_, filter))) = (&reply, self.filters.get_mut(i))
                && filter.takes_response()
            {
                let this = &mut *self;
                if let Some((_, filter)) = this.filters.get_mut(i) {
                    reply = settle(filter.response_taken(&mut this.cx, &this.head, &mut head, &mut body)).await;
                }
            }
            // A second reply would go round for ever: the first one of the encoder side stands.
            if let Some(reply) = reply
                && !std::mem::replace(&mut replied, true)
            {
                (head, body) = self.local_reply(*reply);
                tunnel = None;
            }
            if !matches!(body, Body::Empty) {
                let this = &mut *self;
                if let Some((_, filter)) = this.filters.get_mut(i) {
                    body = filter.response_body(&mut this.cx, body);
                }
            }
        }
        for (name, filter) in &mut self.filters {
            self.cx.filter_name = name.clone();
            filter.response_begun(&mut self.cx, &self.head);
        }
        self.finish_headers(&mut head, tunnel.is_some());
        if let Some(flag) = self.late_flag {
            self.cx.info.flags.set(flag);
        }
        self.count(head.status);
        self.cx.info.response_code = Some(head.status);
        self.cx.info.response_header_bytes = head
            .headers
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len() + 4)
            .sum::<usize>() as u64;
        // Only logs and filters look at the response once it is on its way.
        let headers = match self.hcm.config.access_log.is_empty() && self.filters.is_empty() && self.cx.span.is_none() {
            true => HeaderMap::new(),
            false => {
                let mut headers = head.headers.clone();
                // The codec adds it to what it writes.
                headers
                    .entry(header::DATE)
                    .or_insert_with(crate::http::codec::date_value);
                headers
            }
        };
        self.response = Some(ResponseHead {
            status: head.status,
            version: head.version,
            headers,
            spelling: None,
        });
        match tunnel {
            Some(tunnel) => {
                self.run_tunnel(tunnel);
                (head, Body::Empty)
            }
            None => (head, Body::boxed(EdgeBody::new(body, self))),
        }
    }

    /// A response that a filter wanted whole is too large, or broke off.
    fn unreadable(&self) -> Box<LocalReply> {
        self.hcm.stats().rs_too_large.inc();
        Box::new(LocalReply::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "response_payload_too_large",
        ))
    }

    /// A reply of our own as a response: by `grpc-status` for gRPC clients, through `local_reply_config`.
    fn local_reply(&mut self, mut reply: LocalReply) -> (ResponseHead, Body) {
        if self.upgrade.as_deref() == Some("connect")
            && matches!(
                reply.flag,
                Some(Flag::UpstreamConnectionFailure | Flag::UpstreamConnectionTermination)
            )
        {
            self.handle.note_connect_failed();
        }
        let info = &mut self.cx.info;
        match reply.flag {
            // Envoy's codecs answer first, and the flag follows.
            Some(Flag::DownstreamProtocolError) => self.late_flag = reply.flag,
            Some(flag) => info.flags.set(flag),
            None => {}
        }
        info.response_code_details = Some(reply.details.clone());
        // A request that cannot be understood says nothing of where the next one begins.
        self.close |= reply.status == StatusCode::BAD_REQUEST && !self.hcm.config.stream_error;
        if !reply.verbatim
            && let Some(route) = self.cx.route.as_ref().filter(|r| r.forward().is_some())
        {
            // The route's mutations hold for our own answers too, and come before what the answer itself says.
            let mut head = ResponseHead::new(reply.status);
            route.finalize_response_headers(&mut head, Some(&self.head), info);
            let said = std::mem::replace(&mut reply.headers, head.headers);
            reply.headers.extend(said);
        }
        let grpc = self.grpc && !reply.verbatim;
        let request = (!self.headless).then_some(&self.head);
        let (mut head, body) = self.hcm.config.local_replies.apply(reply, grpc, request, info);
        if grpc {
            if self.head_request {
                // The message is the body that HEAD goes without.
                head.headers.remove("grpc-message");
            }
            return (head, Body::Empty);
        }
        let body = if self.head_request { Bytes::new() } else { body };
        let bodiless = matches!(head.status.as_u16(), 100..=199 | 204 | 304);
        if body.is_empty()
            && !self.head_request
            && !bodiless
            && !head.headers.contains_key(header::CONTENT_LENGTH)
            && self.head.version < Version::HTTP_2
        {
            head.headers
                .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        (head, Body::full(body))
    }

    /// Headers that the connection manager sets or removes on every response.
    fn finish_headers(&mut self, head: &mut ResponseHead, tunnel: bool) {
        let config = &self.hcm.config;
        if head.headers.keys().any(mutate::is_hop_by_hop) {
            if !tunnel {
                head.headers.remove(header::CONNECTION);
                head.headers.remove(header::UPGRADE);
            }
            head.headers.remove(header::TRANSFER_ENCODING);
            head.headers.remove(KEEP_ALIVE);
            head.headers.remove(PROXY_CONNECTION);
        }
        // Routes and filters may have added to what is kept once.
        inline_headers::join_response(&mut head.headers);
        match config.server_header {
            ServerHeader::Overwrite => {
                head.headers.insert(header::SERVER, config.server_name.clone());
            }
            ServerHeader::AppendIfAbsent => {
                head.headers
                    .entry(header::SERVER)
                    .or_insert_with(|| config.server_name.clone());
            }
            ServerHeader::PassThrough => {}
        }
        if (config.always_set_request_id || self.head.headers.contains_key("x-envoy-force-trace"))
            && let Some(id) = self.head.headers.get(X_REQUEST_ID)
        {
            head.headers.insert(X_REQUEST_ID, id.clone());
        }
        if self.hcm.config.tracing.is_some() {
            tracing::respond(self, head);
        }
        let config = &self.hcm.config;
        if let Some(via) = &config.via {
            mutate::append(&mut head.headers, header::VIA, b", ", via);
        }
        if let Some(proxy_status) = &config.proxy_status {
            proxy_status.apply(head, &self.cx.info);
        }
        // Nobody waits for the rest of a request that was answered before its end.
        let early = !self.cx.info.progress.request_complete.get();
        // What follows an accepted CONNECT is no HTTP/1 any more.
        let tunnel = tunnel || self.head.method == Method::CONNECT && head.status.is_success();
        let drains = self.hcm.should_drain();
        if self.head.version < Version::HTTP_2 {
            let last = self.close || early || self.cx.info.progress.drain.get() || self.hcm.should_close();
            if !tunnel && (last || drains) {
                head.headers
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if drains && !last {
                self.handle.drain();
            }
        } else if drains {
            self.handle.drain();
        } else {
            self.handle.drain_if(|| self.hcm.should_close());
        }
    }

    fn count(&self, status: StatusCode) {
        let stats = self.hcm.stats();
        if self.cx.info.health_check {
            self.hcm.config.tracing_stats.local().tracing_health_check.inc();
            return;
        }
        count_response(stats, self.hcm.config.listener_stats.local(), status.as_u16());
        if !self.cx.info.progress.request_complete.get() {
            stats.downstream_rq_response_before_rq_complete.inc();
        }
    }

    /// Copies bytes both ways once the codec has let go of the connection; the stream lives as long.
    fn run_tunnel(mut self: Box<Self>, tunnel: Tunnel) {
        self.ended = true;
        tokio::task::spawn_local(async move {
            let stats = self.hcm.config.stats.clone();
            let stats = stats.local();
            stats.downstream_cx_upgrades_active.inc();
            let idle = self.idle_timeout();
            if self.hcm.config.log_moments.tunnel {
                self.log("DownstreamTunnelSuccessfullyEstablished");
            }
            // Only a stream of HTTP/2 can say that it is done and listen on.
            let half_close = self.head.version >= Version::HTTP_2;
            let mut copying = pin!(tunnel.copy(self.cx.info.progress.clone(), idle, half_close));
            let first = loop {
                let Some(log_at) = self.next_log() else {
                    break copying.as_mut().await;
                };
                tokio::select! {
                    biased;
                    first = copying.as_mut() => break first,
                    () = Deadline::at(log_at) => self.log("DownstreamPeriodic"),
                }
            };
            let info = &mut self.cx.info;
            if first == FirstToEnd::First {
                self.handle.note_tunnel_reset();
            }
            match first {
                // The end of the stream tells which reset it was.
                FirstToEnd::First if self.handle.reset().is_some() => {}
                FirstToEnd::First => {
                    info.flags.set(Flag::DownstreamConnectionTermination);
                    info.response_code_details = Some("downstream_remote_disconnect".into());
                }
                FirstToEnd::Idle => {
                    stats.downstream_rq_idle_timeout.inc();
                    if half_close {
                        stats.downstream_rq_tx_reset.inc();
                    }
                    info.flags.set(Flag::StreamIdleTimeout);
                    info.response_code_details = Some("stream_idle_timeout".into());
                }
                // HTTP/1 has no other end of a tunnel than that of the connection.
                FirstToEnd::SecondFailed | FirstToEnd::Second
                    if first == FirstToEnd::SecondFailed
                        || !half_close && info.upstream.protocol == Some(Version::HTTP_11) =>
                {
                    if half_close {
                        stats.downstream_rq_tx_reset.inc();
                    }
                    info.flags.set(Flag::UpstreamConnectionTermination);
                    info.response_code_details =
                        Some("upstream_reset_after_response_started{connection_termination}".into());
                }
                FirstToEnd::Second | FirstToEnd::SecondFailed => {}
            }
            if self.head.version < Version::HTTP_2 {
                // The codec has given the connection away, and counts no more.
                let progress = &self.cx.info.progress;
                self.hcm
                    .count_bytes(progress.bytes_received.get(), progress.bytes_sent.get());
            }
            stats.downstream_cx_upgrades_active.dec();
        });
    }
}
