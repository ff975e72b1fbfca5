//! `envoy.filters.listener.http_inspector`: which HTTP a client speaks that does not speak TLS.

use std::{io, sync::Arc};

use futures_util::future::LocalBoxFuture;
use http::Method;
use xds_protos::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    listener::{ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    stats::Stats,
    stats_block,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest request line that is waited for.
const MAX_INSPECTED: usize = 64 * 1024;

stats_block! {
    /// `http_inspector.*`
    struct HttpInspectorStats {
        counter read_error, "Connections closed because their request line did not end";
        counter http10_found, "Clients that speak HTTP/1.0";
        counter http11_found, "Clients that speak HTTP/1.1";
        counter http2_found, "Clients that speak HTTP/2";
        counter http_not_found, "Clients that do not speak HTTP";
    }
}

/// The extension.
pub struct Factory;

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.http_inspector";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        let Proto {} = proto;
        Ok(Arc::new(HttpInspector {
            stats: cx.server.stats.scope("http_inspector.").block(),
        }))
    }
}

struct HttpInspector {
    stats: Stats<HttpInspectorStats>,
}

impl ListenerFilter for HttpInspector {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        Box::pin(self.inspect(cx))
    }
}

impl HttpInspector {
    async fn inspect(&self, cx: &mut ListenerFilterCx<'_>) -> Result<(), Refused> {
        if cx.inspected.tls {
            return Ok(());
        }
        let stats = self.stats.local();
        let mut seen = 0;
        let found = loop {
            let bytes = cx.accepted.peek(seen, MAX_INSPECTED).await?;
            if let Some(found) = read(&bytes) {
                break found;
            }
            if bytes.len() >= MAX_INSPECTED {
                stats.read_error.inc();
                return Err(Refused::Filter);
            }
            if bytes.len() == seen {
                return Err(Refused::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            seen = bytes.len();
        };
        let (counter, protocol) = match found {
            Found::Http10 => (&stats.http10_found, "http/1.0"),
            Found::Http11 => (&stats.http11_found, "http/1.1"),
            Found::Http2 => (&stats.http2_found, "h2c"),
            Found::Other => {
                stats.http_not_found.inc();
                return Ok(());
            }
        };
        counter.inc();
        cx.inspected.protocols = vec![protocol.to_owned()];
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Http10,
    Http11,
    Http2,
    Other,
}

/// What the first bytes are; none when more of them are needed.
fn read(bytes: &[u8]) -> Option<Found> {
    let common = bytes.len().min(PREFACE.len());
    if bytes.get(..common) == PREFACE.get(..common) {
        return (bytes.len() >= PREFACE.len()).then_some(Found::Http2);
    }
    // What cannot start a method is told at once; all else by its first line.
    let first = bytes.get(..1).unwrap_or_default();
    if Method::from_bytes(first).is_err() {
        return (!bytes.is_empty()).then_some(Found::Other);
    }
    let end = memchr::memchr(b'\n', bytes)?;
    let line = std::str::from_utf8(bytes.get(..end).unwrap_or_default());
    Some(line.map_or(Found::Other, request_line))
}

fn request_line(line: &str) -> Found {
    let mut words = line.split_ascii_whitespace();
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let is_target = target.starts_with('/') || target == "*" || target.contains("://") || method == "CONNECT";
    match (words.next(), words.next()) {
        _ if Method::from_bytes(method.as_bytes()).is_err() || !is_target || target.is_empty() => Found::Other,
        // HTTP/0.9, which is served as HTTP/1.0 or refused by the codec.
        (None, None) => Found::Http10,
        (Some("HTTP/1.1"), None) => Found::Http11,
        (Some(version), None) => match version.strip_prefix("HTTP/").map(str::as_bytes) {
            Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => Found::Http10,
            _ => Found::Other,
        },
        _ => Found::Other,
    }
}
