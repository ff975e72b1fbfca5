//! `envoy.filters.listener.tls_inspector`: whether a client speaks TLS, the SNI and ALPN of its ClientHello, and its
//! fingerprints.

mod client_hello;
mod fingerprint;
mod md5;
mod reader;

use std::{io, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector as Proto,
    google::protobuf::{Struct, Value, value::Kind},
};

use self::client_hello::{ClientHello, Read, read};
use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
    listener::{ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
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
            supported {
                close_connection_on_client_hello_parsing_errors, max_client_hello_size, enable_ja3_fingerprinting,
                enable_ja4_fingerprinting, initial_read_buffer_size
            }
        });
        // The buffer starts small and grows with the ClientHello whatever is said.
        let _ = initial_read_buffer_size;
        let limit = max_client_hello_size.and_then(|v| usize::try_from(v.value).ok());
        Ok(Arc::new(TlsInspector {
            limit: limit.unwrap_or(MAX_CLIENT_HELLO),
            only_tls: close_connection_on_client_hello_parsing_errors,
            ja3: enable_ja3_fingerprinting.is_some_and(|v| v.value),
            ja4: enable_ja4_fingerprinting.is_some_and(|v| v.value),
            stats: cx.server.stats.scope("tls_inspector.").block(),
        }))
    }
}

struct TlsInspector {
    limit: usize,
    only_tls: bool,
    ja3: bool,
    ja4: bool,
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
            let ended = bytes.len() == seen;
            seen = bytes.len();
            match read(&bytes) {
                Read::Hello(hello, consumed) => {
                    stats.bytes_processed.record(consumed as u64);
                    return self.found(&hello, cx);
                }
                Read::NotTls(consumed) => {
                    stats.bytes_processed.record(consumed as u64);
                    return self.not_found(bytes.len(), cx.info);
                }
                Read::Incomplete if bytes.len() >= self.limit => {
                    stats.bytes_processed.record(bytes.len() as u64);
                    stats.client_hello_too_large.inc();
                    explain(cx.info, "ClientHelloTooLarge");
                    tracing::debug!(client = %cx.info.remote_address, limit = self.limit, "ClientHello too large");
                    return Err(Refused::Filter);
                }
                Read::Incomplete if ended => return Err(Refused::Io(io::ErrorKind::UnexpectedEof.into())),
                Read::Incomplete => {}
            }
        }
    }

    fn not_found(&self, seen: usize, info: &ConnectionInfo) -> Result<(), Refused> {
        let stats = self.stats.local();
        tracing::debug!(client = %info.remote_address, "no ClientHello");
        // Where only TLS is wanted: too long to tell from a ClientHello that is too large.
        if self.only_tls && seen >= self.limit {
            stats.client_hello_too_large.inc();
            explain(info, "ClientHelloTooLarge");
            return Err(Refused::Filter);
        }
        stats.tls_not_found.inc();
        explain(info, "ClientHelloNotDetected");
        match self.only_tls {
            true => Err(Refused::Filter),
            false => Ok(()),
        }
    }

    fn found(&self, hello: &ClientHello, cx: &mut ListenerFilterCx<'_>) -> Result<(), Refused> {
        let stats = self.stats.local();
        self.take_fingerprints(hello, cx.info);
        match hello.server_name() {
            None => stats.sni_not_found.inc(),
            Some(name) => {
                stats.sni_found.inc();
                let name: Arc<str> = name.to_ascii_lowercase().into();
                cx.inspected.server_name = Some(name.clone());
                cx.info.server_name = Some(name);
            }
        }
        if !hello.is_of_known_version() {
            stats.tls_not_found.inc();
            explain(cx.info, "ClientHelloInvalidTlsVersion");
            tracing::debug!(client = %cx.info.remote_address, version = hello.version, "ClientHello of an unknown version");
            return Err(Refused::Filter);
        }
        stats.tls_found.inc();
        cx.inspected.tls = true;
        let protocols = hello.protocols();
        match protocols.is_empty() {
            true => stats.alpn_not_found.inc(),
            false => {
                stats.alpn_found.inc();
                cx.inspected.protocols = protocols;
            }
        }
        Ok(())
    }

    fn take_fingerprints(&self, hello: &ClientHello, info: &mut ConnectionInfo) {
        if self.ja3 {
            info.ja3 = Some(fingerprint::ja3(hello).into());
        }
        if self.ja4 {
            info.ja4 = Some(fingerprint::ja4(hello).into());
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
