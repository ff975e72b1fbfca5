//! Which protocol a client speaks: as configured, as TLS settled, or as its first bytes tell.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::Version;

use super::{CloseReason, CodecOptions, CodecType, Handler, http1, http2};
use crate::{
    http::Scheme,
    net::{Deadline, Stream},
    server::overload::ScaledTimer,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until it ends. `alpn` is the protocol that TLS settled. `told` is ready when the connection should
/// begin to end though nothing happens on it.
pub async fn serve<H: Handler + 'static>(
    mut stream: Stream,
    alpn: Option<&str>,
    scheme: Scheme,
    options: &CodecOptions,
    told: impl Future<Output = ()>,
    handler: Rc<H>,
) {
    let mut told = pin!(told);
    let known = match (options.codec, alpn) {
        (CodecType::Http1, _) => Some(false),
        (CodecType::Http2, _) | (CodecType::Auto, Some("h2")) => Some(true),
        (CodecType::Auto, Some(_)) => Some(false),
        (CodecType::Auto, None) => None,
    };
    let (http2, prefix) = match known {
        Some(http2) if !handler.asks_first() => (http2, BytesMut::new()),
        _ => {
            let found = tokio::select! {
                biased;
                found = first_bytes(&mut stream, known, options, &*handler) => found,
                // Whoever has said nothing is not waited for.
                () = &mut told => {
                    handler.drain_started();
                    Err(CloseReason::Drain)
                }
            };
            match found {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(reason) => return handler.closing(reason),
            }
        }
    };
    if handler.asks_first() && !handler.may_begin() {
        return handler.closing(CloseReason::Local);
    }
    if http2 {
        handler.protocol(Version::HTTP_2);
        // Boxed, so that an HTTP/1 connection does not keep room for it.
        Box::pin(http2::serve(stream, prefix.freeze(), scheme, options, told, handler)).await;
    } else {
        handler.protocol(Version::HTTP_11);
        http1::serve(stream, prefix, scheme, options, told, handler).await;
    }
}

/// Waits for the first bytes, which tell the protocol if it is not known. None: the client went. An error: it has said
/// nothing for too long.
async fn first_bytes<H: Handler>(
    stream: &mut Stream,
    known: Option<bool>,
    options: &CodecOptions,
    handler: &H,
) -> Result<Option<(bool, BytesMut)>, CloseReason> {
    let since = Instant::now();
    let mut detecting = pin!(detect(stream, known));
    let mut armed: Option<(Instant, Deadline)> = None;
    poll_fn(|cx| {
        if let Poll::Ready(found) = detecting.as_mut().poll(cx) {
            return Poll::Ready(Ok(found.unwrap_or_default()));
        }
        let (Some(limit), reason) = patience(options, handler) else {
            return Poll::Pending;
        };
        let due = since + limit;
        if armed.as_ref().is_none_or(|(at, _)| *at != due) {
            armed = Some((due, Deadline::at(due)));
        }
        match &mut armed {
            Some((_, deadline)) => Pin::new(deadline).poll(cx).map(|()| Err(reason)),
            None => Poll::Pending,
        }
    })
    .await
}

/// How long a client may say nothing, and what it is then.
fn patience<H: Handler>(options: &CodecOptions, handler: &H) -> (Option<Duration>, CloseReason) {
    let scaled = |timer, limit: Option<Duration>| limit.map(|limit| handler.scaled(timer, limit));
    let idle = scaled(ScaledTimer::ConnectionIdle, options.idle_timeout);
    match scaled(ScaledTimer::ConnectionMax, options.max_connection_duration) {
        Some(longest) if idle.is_none_or(|idle| longest < idle) => (Some(longest), CloseReason::MaxDuration),
        _ => (idle, CloseReason::Idle),
    }
}

/// Reads until it is clear whether the client starts with HTTP/2's preface, or anything if that is known. None: the
/// client went.
async fn detect(stream: &mut Stream, known: Option<bool>) -> io::Result<Option<(bool, BytesMut)>> {
    let mut seen = BytesMut::new();
    loop {
        // Most clients start with their first request, whole.
        if poll_fn(|cx| http1::read_ahead(stream, &mut seen, cx)).await? == 0 {
            return Ok(None);
        }
        if let Some(http2) = known {
            return Ok(Some((http2, seen)));
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
