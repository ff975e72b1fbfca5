//! Which protocol a client speaks: as configured, as TLS settled, or as its first bytes tell.

use std::{io, rc::Rc, time::Duration};

use bytes::BytesMut;
use http::Version;
use tokio::io::AsyncReadExt;

use super::{CodecOptions, CodecType, Handler, http1, http2};
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
        (CodecType::Auto, None) => match detect(&mut stream, options.idle_timeout).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => return,
        },
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

/// Reads until it is clear whether the client starts with HTTP/2's preface. None: the client went, or idled away.
async fn detect(stream: &mut Stream, idle: Option<Duration>) -> io::Result<Option<(bool, BytesMut)>> {
    let mut seen = BytesMut::new();
    let reading = async {
        loop {
            // Most clients start with their first request, whole.
            seen.reserve(512);
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(None);
            }
            let common = seen.len().min(PREFACE.len());
            if seen.get(..common) != PREFACE.get(..common) {
                return Ok(Some(false));
            }
            if common == PREFACE.len() {
                return Ok(Some(true));
            }
        }
    };
    let found = match idle {
        Some(limit) => tokio::time::timeout(limit, reading)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)?,
        None => reading.await,
    };
    found.map(|f: Option<bool>| f.map(|http2| (http2, seen)))
}
