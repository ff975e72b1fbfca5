//! Which protocol a client speaks: as configured, as TLS settled, or as its first bytes tell.

use std::{future::poll_fn, io, rc::Rc, time::Duration};

use bytes::BytesMut;
use http::Version;

use super::{CloseReason, CodecOptions, CodecType, Handler, http1, http2};
use crate::{http::Scheme, net::Stream, server::Drain};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends. `alpn` is the protocol that TLS settled; `tls` the scheme.
pub async fn serve<H: Handler + 'static>(
    mut stream: Stream,
    alpn: Option<&str>,
    scheme: Scheme,
    options: &CodecOptions,
    drain: Drain,
    handler: Rc<H>,
) {
    let (http2, prefix) = match (options.codec, alpn) {
        (CodecType::Http1, _) => (false, BytesMut::new()),
        (CodecType::Http2, _) | (CodecType::Auto, Some("h2")) => (true, BytesMut::new()),
        (CodecType::Auto, Some(_)) => (false, BytesMut::new()),
        (CodecType::Auto, None) => {
            let (limit, reason) = patience(options);
            let found = match limit {
                Some(limit) => tokio::time::timeout(limit, detect(&mut stream)).await,
                None => Ok(detect(&mut stream).await),
            };
            match found {
                Ok(Ok(Some(found))) => found,
                Ok(Ok(None) | Err(_)) => return,
                Err(_) => return handler.closing(reason),
            }
        }
    };
    if http2 {
        handler.protocol(Version::HTTP_2);
        // Boxed, so that an HTTP/1 connection does not keep room for it.
        Box::pin(http2::serve(stream, prefix.freeze(), scheme, options, drain, handler)).await;
    } else {
        handler.protocol(Version::HTTP_11);
        http1::serve(stream, prefix, scheme, options, drain, handler).await;
    }
}

/// How long a client may say nothing, and what it is then.
fn patience(options: &CodecOptions) -> (Option<Duration>, CloseReason) {
    match (options.idle_timeout, options.max_connection_duration) {
        (idle, Some(longest)) if idle.is_none_or(|idle| longest < idle) => (Some(longest), CloseReason::MaxDuration),
        (idle, _) => (idle, CloseReason::Idle),
    }
}

/// Reads until it is clear whether the client starts with HTTP/2's preface. None: the client went.
async fn detect(stream: &mut Stream) -> io::Result<Option<(bool, BytesMut)>> {
    let mut seen = BytesMut::new();
    loop {
        // Most clients start with their first request, whole.
        if poll_fn(|cx| http1::read_ahead(stream, &mut seen, cx)).await? == 0 {
            return Ok(None);
        }
        let common = seen.len().min(PREFACE.len());
        if seen.get(..common) != PREFACE.get(..common) {
            return Ok(Some((false, seen)));
        }
        if common == PREFACE.len() {
            return Ok(Some((true, seen)));
        }
    }
}
