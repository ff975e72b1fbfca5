//! Commands without arguments, in one table.

use std::io::Write;

use super::{
    command::{Kind, Plain, number, put},
    values::*,
};

/// The command of this name.
pub(super) fn find(name: &str) -> Option<Plain> {
    TABLE.iter().find(|(n, _)| *n == name).map(|(_, write)| *write)
}

const TABLE: &[(&str, Plain)] = &[
    ("PROTOCOL", |cx, out| put(out, version(cx.info.protocol?).as_bytes())),
    ("UPSTREAM_PROTOCOL", |cx, out| {
        put(out, version(cx.info.upstream.protocol?).as_bytes())
    }),
    ("RESPONSE_CODE", |cx, out| {
        count(out, cx.info.response_code.map_or(0, |c| u64::from(c.as_u16())))
    }),
    ("RESPONSE_FLAGS", |cx, out| {
        let _ = write!(out, "{}", cx.info.flags);
        Some(Kind::Text)
    }),
    ("RESPONSE_FLAGS_LONG", |cx, out| {
        if cx.info.flags.is_empty() {
            return put(out, b"-");
        }
        join(out, cx.info.flags.iter().map(|f| f.long()))
    }),
    ("CONNECTION_TERMINATION_DETAILS", |cx, out| {
        text(out, cx.info.connection_termination_details.as_deref())
    }),
    ("ROUTE_NAME", |cx, out| text(out, cx.info.route_name.as_deref())),
    ("ROUTE_RESOLUTION_COUNT", |cx, out| {
        count(out, cx.info.route_resolutions.0.into())
    }),
    ("ROUTE_RESOLUTION_TIME_US", |cx, out| {
        number(out, cx.info.route_resolutions.1.as_micros())
    }),
    ("VIRTUAL_CLUSTER_NAME", |cx, out| {
        text(out, cx.info.virtual_cluster.as_deref())
    }),
    ("FILTER_CHAIN_NAME", |cx, out| {
        text(out, Some(&cx.info.connection.filter_chain))
    }),
    ("LISTENER_NAME", |cx, out| text(out, Some(&cx.info.connection.listener))),
    ("STREAM_ID", |cx, out| put(out, cx.info.request_id.as_ref()?.as_bytes())),
    ("CONNECTION_ID", |cx, out| count(out, cx.info.connection.id)),
    ("UNIQUE_ID", |_, out| {
        let _ = write!(out, "{}", uuid::Uuid::new_v4());
        Some(Kind::Text)
    }),
    ("TRACE_ID", |cx, out| text(out, cx.info.trace_id.as_deref())),
    ("SPAN_ID", |cx, out| text(out, cx.info.span_id.as_deref())),
    ("ACCESS_LOG_TYPE", |cx, out| {
        put(out, cx.info.access_log_type.as_bytes())
    }),
    ("LOCAL_REPLY_BODY", |cx, out| {
        put(out, cx.info.local_reply_body.as_deref().unwrap_or_default())
    }),
    ("GRPC_STATUS_NUMBER", |cx, out| {
        super::grpc_status::write(super::grpc_status::GrpcStyle::Number, out, cx)
    }),
    ("CUSTOM_FLAGS", |cx, out| {
        join(out, cx.info.custom_flags.iter().map(|f| &**f))
    }),
    // Bytes.
    ("BYTES_RECEIVED", |cx, out| {
        count(out, cx.info.progress.bytes_received.get())
    }),
    ("BYTES_SENT", |cx, out| count(out, cx.info.progress.bytes_sent.get())),
    ("BYTES_RETRANSMITTED", |_, out| count(out, 0)),
    ("PACKETS_RETRANSMITTED", |_, out| count(out, 0)),
    ("REQUEST_HEADERS_BYTES", |cx, out| {
        count(
            out,
            cx.request.map_or(0, |r| {
                let pseudo = r.method.as_str().len() + r.path().len() + r.host().len() + r.scheme.as_str().len();
                header_bytes(&r.headers) + pseudo as u64 + PSEUDO_NAMES
            }),
        )
    }),
    ("RESPONSE_HEADERS_BYTES", |cx, out| {
        count(out, cx.response.map_or(0, |r| header_bytes(&r.headers) + STATUS_BYTES))
    }),
    ("RESPONSE_TRAILERS_BYTES", |cx, out| {
        count(out, cx.info.response_trailers.as_ref().map_or(0, header_bytes))
    }),
    // Durations in milliseconds.
    ("DURATION", |cx, out| {
        let end = cx.info.end.unwrap_or_else(std::time::Instant::now);
        number(out, end.saturating_duration_since(cx.info.start).as_millis())
    }),
    ("REQUEST_DURATION", |cx, out| {
        since(out, Some(cx.info.start), cx.info.progress.last_downstream_rx.get())
    }),
    ("REQUEST_TX_DURATION", |cx, out| {
        since(out, Some(cx.info.start), cx.info.progress.last_upstream_tx.get())
    }),
    ("RESPONSE_DURATION", |cx, out| {
        since(out, Some(cx.info.start), cx.info.progress.first_upstream_rx.get())
    }),
    ("RESPONSE_TX_DURATION", |cx, out| {
        let progress = &cx.info.progress;
        since(out, progress.first_upstream_rx.get(), progress.last_downstream_tx.get())
    }),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", |cx, out| {
        number(out, cx.info.upstream.pool_ready?.as_millis())
    }),
    ("DOWNSTREAM_HANDSHAKE_DURATION", missing),
    ("ROUNDTRIP_DURATION", missing),
    // Upstream.
    ("UPSTREAM_CLUSTER", |cx, out| {
        text(out, cx.info.upstream.cluster_observability_name.as_deref())
    }),
    ("UPSTREAM_CLUSTER_RAW", |cx, out| {
        text(out, cx.info.upstream.cluster.as_deref())
    }),
    ("UPSTREAM_HOST", |cx, out| {
        let upstream = &cx.info.upstream;
        let host = upstream.host.as_ref()?;
        match upstream.remote_address.as_ref().filter(|_| host.has_moved()) {
            // Its address when the connection was made.
            Some(then) => address(out, then),
            None => address(out, &host.address),
        }
    }),
    ("UPSTREAM_HOST_NAME", |cx, out| {
        host_name(out, cx.info.upstream.host.as_ref()?)
    }),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", |cx, out| {
        let start = out.len();
        let kind = host_name(out, cx.info.upstream.host.as_ref()?);
        strip_port(start, out);
        kind
    }),
    ("UPSTREAM_HOSTS_ATTEMPTED", |cx, out| {
        joined(out, attempted(cx).map(|h| h.address.to_string()))
    }),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", |cx, out| {
        joined(out, attempted(cx).map(|h| plain_ip(&h.address)))
    }),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", |cx, out| {
        joined(out, attempted(cx).map(|h| name_of(h)))
    }),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", |cx, out| {
        joined(
            out,
            attempted(cx).map(|h| {
                let mut name = name_of(h).into_bytes();
                strip_port(0, &mut name);
                String::from_utf8_lossy(&name).into_owned()
            }),
        )
    }),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", |cx, out| {
        joined(out, {
            let upstream = &cx.info.upstream;
            upstream
                .earlier_connections
                .iter()
                .chain(&upstream.connection_id)
                .map(u64::to_string)
        })
    }),
    ("UPSTREAM_CONNECTION_ID", |cx, out| {
        count(out, cx.info.upstream.connection_id.unwrap_or(0))
    }),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", |cx, out| {
        count(out, u64::from(cx.info.upstream.attempts))
    }),
    ("UPSTREAM_LOCAL_ADDRESS", |cx, out| {
        address(out, cx.info.upstream.local_address.as_ref()?)
    }),
    ("UPSTREAM_LOCAL_PORT", |cx, out| {
        port(out, cx.info.upstream.local_address.as_ref()?)
    }),
    ("UPSTREAM_REMOTE_ADDRESS", |cx, out| {
        address(out, cx.info.upstream.remote_address.as_ref()?)
    }),
    ("UPSTREAM_REMOTE_PORT", |cx, out| {
        port(out, cx.info.upstream.remote_address.as_ref()?)
    }),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", |cx, out| {
        endpoint(out, cx.info.upstream.remote_address.as_ref()?)
    }),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", |cx, out| {
        reason(out, cx.info.upstream.transport_failure.as_deref())
    }),
    ("UPSTREAM_SERVER_NAME", |cx, out| {
        text(out, cx.info.upstream.tls.as_ref()?.sni.as_deref())
    }),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", |cx, out| {
        cx.info.upstream.host.as_ref()?;
        text(out, Some(cx.info.upstream.close.detected.as_str()))
    }),
    ("UPSTREAM_LOCAL_CLOSE_REASON", |cx, out| {
        text(out, cx.info.upstream.close.local_reason.as_deref())
    }),
    ("UPSTREAM_TLS_VERSION", |cx, out| tls(out, upstream(cx), |t| t.version)),
    ("UPSTREAM_TLS_CIPHER", |cx, out| tls(out, upstream(cx), |t| t.cipher)),
    ("UPSTREAM_TLS_SESSION_ID", |cx, out| {
        tls(out, upstream(cx), |t| &t.session_id)
    }),
    ("UPSTREAM_TLS_GROUP", |cx, out| tls(out, upstream(cx), |t| t.group)),
    ("UPSTREAM_PEER_SUBJECT", |cx, out| {
        tls(out, upstream(cx), |t| &t.peer.subject)
    }),
    ("UPSTREAM_PEER_ISSUER", |cx, out| {
        tls(out, upstream(cx), |t| &t.peer.issuer)
    }),
    ("UPSTREAM_PEER_CERT", |cx, out| {
        tls(out, upstream(cx), |t| &t.peer.url_encoded_pem)
    }),
    ("UPSTREAM_PEER_URI_SAN", |cx, out| {
        sans(out, &upstream(cx)?.peer, |c| &c.uri_sans)
    }),
    ("UPSTREAM_PEER_DNS_SAN", |cx, out| {
        sans(out, &upstream(cx)?.peer, |c| &c.dns_sans)
    }),
    ("UPSTREAM_PEER_IP_SAN", |cx, out| {
        sans(out, &upstream(cx)?.peer, |c| &c.ip_sans)
    }),
    ("UPSTREAM_LOCAL_URI_SAN", |cx, out| {
        sans(out, &upstream(cx)?.local, |c| &c.uri_sans)
    }),
    ("UPSTREAM_LOCAL_DNS_SAN", |cx, out| {
        sans(out, &upstream(cx)?.local, |c| &c.dns_sans)
    }),
    ("UPSTREAM_LOCAL_IP_SAN", |cx, out| {
        sans(out, &upstream(cx)?.local, |c| &c.ip_sans)
    }),
    // Downstream.
    ("DOWNSTREAM_LOCAL_ADDRESS", |cx, out| {
        address(out, &cx.info.connection.local_address)
    }),
    ("DOWNSTREAM_LOCAL_PORT", |cx, out| {
        port(out, &cx.info.connection.local_address)
    }),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", |cx, out| {
        endpoint(out, &cx.info.connection.local_address)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", |cx, out| {
        address(out, &cx.info.connection.local_address)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_PORT", |cx, out| {
        port(out, &cx.info.connection.local_address)
    }),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", |cx, out| {
        endpoint(out, &cx.info.connection.local_address)
    }),
    ("DOWNSTREAM_REMOTE_ADDRESS", |cx, out| {
        address(out, cx.info.remote_address())
    }),
    ("DOWNSTREAM_REMOTE_PORT", |cx, out| port(out, cx.info.remote_address())),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", |cx, out| {
        address(out, &cx.info.connection.direct_remote_address)
    }),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", |cx, out| {
        port(out, &cx.info.connection.direct_remote_address)
    }),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", |cx, out| {
        reason(out, cx.info.connection.transport_failure.borrow().as_deref())
    }),
    ("DOWNSTREAM_CX_RTT", missing),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", |cx, out| {
        text(out, Some(cx.info.close.detected.as_str()))
    }),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", |cx, out| text(out, local_close(cx))),
    ("DOWNSTREAM_TLS_VERSION", |cx, out| {
        tls(out, downstream(cx), |t| t.version)
    }),
    ("DOWNSTREAM_TLS_CIPHER", |cx, out| {
        tls(out, downstream(cx), |t| t.cipher)
    }),
    ("DOWNSTREAM_TLS_SESSION_ID", |cx, out| {
        tls(out, downstream(cx), |t| &t.session_id)
    }),
    ("DOWNSTREAM_TLS_GROUP", |cx, out| tls(out, downstream(cx), |t| t.group)),
    ("DOWNSTREAM_PEER_SUBJECT", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.subject)
    }),
    ("DOWNSTREAM_PEER_ISSUER", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.issuer)
    }),
    ("DOWNSTREAM_PEER_SERIAL", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.serial)
    }),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.sha256)
    }),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.sha1)
    }),
    ("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.chain_sha256)
    }),
    ("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.chain_sha1)
    }),
    ("DOWNSTREAM_PEER_CHAIN_SERIALS", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.chain_serials)
    }),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", |cx, out| {
        tls(out, downstream(cx), |t| &t.issuer.sha256)
    }),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", |cx, out| {
        tls(out, downstream(cx), |t| &t.issuer.serial)
    }),
    ("DOWNSTREAM_PEER_CERT", |cx, out| {
        tls(out, downstream(cx), |t| &t.peer.url_encoded_pem)
    }),
    ("DOWNSTREAM_PEER_URI_SAN", |cx, out| {
        sans(out, &downstream(cx)?.peer, |c| &c.uri_sans)
    }),
    ("DOWNSTREAM_PEER_DNS_SAN", |cx, out| {
        sans(out, &downstream(cx)?.peer, |c| &c.dns_sans)
    }),
    ("DOWNSTREAM_PEER_IP_SAN", |cx, out| {
        sans(out, &downstream(cx)?.peer, |c| &c.ip_sans)
    }),
    ("DOWNSTREAM_PEER_EMAIL_SAN", |cx, out| {
        sans(out, &downstream(cx)?.peer, |c| &c.email_sans)
    }),
    ("DOWNSTREAM_PEER_OTHERNAME_SAN", |cx, out| {
        sans(out, &downstream(cx)?.peer, |c| &c.other_names)
    }),
    ("DOWNSTREAM_LOCAL_SUBJECT", |cx, out| {
        tls(out, downstream(cx), |t| &t.local.subject)
    }),
    ("DOWNSTREAM_LOCAL_URI_SAN", |cx, out| {
        sans(out, &downstream(cx)?.local, |c| &c.uri_sans)
    }),
    ("DOWNSTREAM_LOCAL_DNS_SAN", |cx, out| {
        sans(out, &downstream(cx)?.local, |c| &c.dns_sans)
    }),
    ("DOWNSTREAM_LOCAL_IP_SAN", |cx, out| {
        sans(out, &downstream(cx)?.local, |c| &c.ip_sans)
    }),
    ("DOWNSTREAM_LOCAL_EMAIL_SAN", |cx, out| {
        sans(out, &downstream(cx)?.local, |c| &c.email_sans)
    }),
    ("DOWNSTREAM_LOCAL_OTHERNAME_SAN", |cx, out| {
        sans(out, &downstream(cx)?.local, |c| &c.other_names)
    }),
    ("TLS_JA3_FINGERPRINT", |cx, out| {
        text(out, cx.info.connection.ja3.as_deref())
    }),
    ("TLS_JA4_FINGERPRINT", |cx, out| {
        text(out, cx.info.connection.ja4.as_deref())
    }),
];
