//! `envoy.filters.listener.tls_inspector`: whether a client speaks TLS, and the SNI and ALPN of its ClientHello.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use rustls::server::Acceptor;
use xds_protos::{
    envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector as Proto,
    google::protobuf::{Struct, Value, value::Kind},
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
    listener::{Inspected, ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
    stats::Stats,
    stats_block,
};

/// The namespace of what is said about clients that were not understood.
const NAMESPACE: &str = "envoy.filters.listener.tls_inspector";

/// The largest ClientHello: what BoringSSL takes, and the default of `max_client_hello_size`.
const MAX_CLIENT_HELLO: usize = 16 * 1024;

stats_block! {
    /// `tls_inspector.*`
    struct TlsInspectorStats {
        counter client_hello_too_large, "Connections closed because their ClientHello was too large";
        counter tls_found, "Clients that speak TLS";
        counter tls_not_found, "Clients that do not";
        counter alpn_found, "ClientHellos with ALPN";
        counter alpn_not_found, "ClientHellos without";
        counter sni_found, "ClientHellos with a server name";
        counter sni_not_found, "ClientHellos without";
        histogram(bytes) bytes_processed, "Bytes that were looked at";
    }
}

/// The extension.
pub struct Factory;

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.tls_inspector";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        coverage!(cx, proto => Proto {
            supported { close_connection_on_client_hello_parsing_errors, max_client_hello_size }
            ignored {
                initial_read_buffer_size: "the buffer grows with the ClientHello",
                enable_ja3_fingerprinting: "fingerprints only feed logs",
                enable_ja4_fingerprinting: "fingerprints only feed logs"
            }
        });
        let limit = max_client_hello_size.and_then(|v| usize::try_from(v.value).ok());
        Ok(Arc::new(TlsInspector {
            limit: limit.unwrap_or(MAX_CLIENT_HELLO),
            only_tls: close_connection_on_client_hello_parsing_errors,
            stats: cx.server.stats.scope("tls_inspector.").block(),
        }))
    }
}

struct TlsInspector {
    limit: usize,
    only_tls: bool,
    stats: Stats<TlsInspectorStats>,
}

impl ListenerFilter for TlsInspector {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        Box::pin(self.inspect(cx))
    }
}

impl TlsInspector {
    async fn inspect(&self, cx: &mut ListenerFilterCx<'_>) -> Result<(), Refused> {
        let stats = self.stats.local();
        let mut seen = 0;
        loop {
            let bytes = cx.accepted.peek(seen, self.limit).await?;
            let hello = read(&bytes);
            if matches!(hello, Hello::Incomplete) && bytes.len() < self.limit {
                if bytes.len() == seen {
                    return Err(Refused::Io(std::io::ErrorKind::UnexpectedEof.into()));
                }
                seen = bytes.len();
                continue;
            }
            stats.bytes_processed.record(bytes.len() as u64);
            return match hello {
                Hello::Found(found) => {
                    self.found(&found);
                    cx.info.server_name.clone_from(&found.server_name);
                    *cx.inspected = found;
                    Ok(())
                }
                Hello::NotTls if self.only_tls => {
                    // Too long to tell from a ClientHello that is too large.
                    match bytes.len() >= self.limit {
                        true => stats.client_hello_too_large.inc(),
                        false => stats.tls_not_found.inc(),
                    }
                    Err(Refused::Filter)
                }
                Hello::NotTls => {
                    stats.tls_not_found.inc();
                    explain(cx.info, "ClientHelloNotDetected");
                    Ok(())
                }
                Hello::Incomplete => {
                    stats.client_hello_too_large.inc();
                    Err(Refused::Filter)
                }
            };
        }
    }

    fn found(&self, found: &Inspected) {
        let stats = self.stats.local();
        stats.tls_found.inc();
        match found.protocols.is_empty() {
            true => stats.alpn_not_found.inc(),
            false => stats.alpn_found.inc(),
        }
        match &found.server_name {
            None => stats.sni_not_found.inc(),
            Some(_) => stats.sni_found.inc(),
        }
    }
}

/// Leaves why there is no ClientHello to logs and later filters.
fn explain(info: &ConnectionInfo, reason: &str) {
    let value = Value {
        kind: Some(Kind::StringValue(reason.to_owned())),
    };
    let fields = [("failure_reason".to_owned(), value)].into();
    info.metadata
        .borrow_mut()
        .insert(NAMESPACE.to_owned(), Struct { fields });
}

enum Hello {
    Found(Inspected),
    NotTls,
    Incomplete,
}

fn read(bytes: &[u8]) -> Hello {
    if bytes.first().is_some_and(|b| *b != 0x16) {
        return Hello::NotTls;
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Hello::NotTls;
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let text = |p: &[u8]| std::str::from_utf8(p).ok().map(str::to_owned);
            Hello::Found(Inspected {
                tls: true,
                server_name: hello.server_name().map(|n| n.to_ascii_lowercase().into()),
                protocols: hello.alpn().into_iter().flatten().filter_map(text).collect(),
            })
        }
        Ok(None) => Hello::Incomplete,
        Err(_) => Hello::NotTls,
    }
}
