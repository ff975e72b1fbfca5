//! What is spoken between TCP and HTTP: plain text or TLS, chosen per endpoint by its metadata.

use std::{fmt, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::config::{
        cluster::v3::cluster::TransportSocketMatch,
        core::v3::{TransportSocket as Proto, transport_socket::ConfigType},
    },
    envoy::extensions::transport_sockets::{starttls::v3::UpstreamStartTlsConfig, tcp_stats::v3::Config as TcpStats},
    google::protobuf::{Any, Struct},
    xds::r#type::matcher::v3::Matcher,
};

use super::{
    ClusterInfo, Host, HostAttributes, TransportOptions, http_11_proxy::Http11Proxy,
    internal_upstream::InternalUpstream, proxy_protocol::UpstreamProxyProtocol, transport_matcher::SocketMatcher,
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    http::stream_info::{Metadata, SharedObjects, TlsInfo},
    net::{Address, Stream},
    server::Passthrough,
    stats::{Counter, Scope},
    tls::{ClientOptions, ClientTls, HandshakeError},
};

/// What a transport socket is given to connect with.
pub struct TransportCx<'a> {
    /// Of this cluster.
    pub cluster: &'a ClusterInfo,
    /// Where the connection goes.
    pub host: &'a Host,
    /// What the request wants of it.
    pub options: Option<&'a TransportOptions>,
    /// ALPN to offer when the configuration names none.
    pub alpn: &'static [&'static str],
}

/// A stream behind its transport socket, with the TLS facts where there is TLS.
pub type Connected = Result<(Stream, Option<Arc<TlsInfo>>), HandshakeError>;

/// A transport socket that does more than pass bytes on.
pub trait ClientTransport: Send + Sync + fmt::Debug {
    /// Wraps a connected stream. The caller limits the time.
    fn connect<'a>(&'a self, stream: Stream, cx: TransportCx<'a>) -> LocalBoxFuture<'a, Connected>;

    /// The socket that this one is around: what a wrapper does not answer itself is asked of it. None where there is
    /// no other.
    fn inner(&self) -> Option<&TransportSocket> {
        None
    }

    /// Whether bytes are protected: decides `:scheme` and the ALPN.
    fn is_secure(&self) -> bool {
        self.inner().is_some_and(TransportSocket::is_secure)
    }

    /// Where to connect to instead of the host.
    fn proxy_of(&self, host: &Host) -> Option<Address> {
        self.inner()?.proxy_of(host)
    }

    /// What goes along to an internal listener: of the host, of the cluster's metadata, of shared filter state.
    fn passthrough(&self, host: &Host, cluster: &Arc<Metadata>, shared: Option<&SharedObjects>) -> Passthrough {
        self.inner()
            .map(|inner| inner.passthrough(host, cluster, shared))
            .unwrap_or_default()
    }

    /// Whether it tells the upstream of the client, so that clients must not share connections.
    fn speaks_proxy_protocol(&self) -> bool {
        self.inner().is_some_and(TransportSocket::speaks_proxy_protocol)
    }
}

/// A transport socket.
#[derive(Debug, Clone)]
pub enum TransportSocket {
    /// `envoy.transport_sockets.raw_buffer`: bytes as they are.
    RawBuffer,
    /// Anything else.
    Client(Arc<dyn ClientTransport>),
}

impl TransportSocket {
    /// Builds by the type of the configuration; none is plain text. Statistics stand below `scope`, the cluster's.
    pub fn build(proto: Option<Proto>, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(Proto { name, config_type }) = proto else {
            return Ok(Self::RawBuffer);
        };
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => plain(any, cx)?,
            None => Default::default(),
        };
        match any.type_name() {
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(Self::RawBuffer),
            "" if name == "envoy.transport_sockets.raw_buffer" => Ok(Self::RawBuffer),
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
                let tls = cx.field("typed_config", |cx| ClientTls::build(&any, scope, cx))?;
                Ok(Self::Client(tls))
            }
            "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" => {
                let socket = cx.field("typed_config", |cx| UpstreamProxyProtocol::build(&any, scope, cx))?;
                Ok(Self::Client(Arc::new(socket)))
            }
            "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport" => {
                let socket = cx.field("typed_config", |cx| Http11Proxy::build(&any, scope, cx))?;
                Ok(Self::Client(Arc::new(socket)))
            }
            "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport" => {
                let socket = cx.field("typed_config", |cx| InternalUpstream::build(&any, scope, cx))?;
                Ok(Self::Client(Arc::new(socket)))
            }
            "envoy.extensions.transport_sockets.starttls.v3.UpstreamStartTlsConfig" => {
                cx.field("typed_config", |cx| start_tls(&any, scope, cx))
            }
            "envoy.extensions.transport_sockets.tcp_stats.v3.Config" => cx.field("typed_config", |cx| {
                let proto = unpack::<TcpStats>(&any, cx)?;
                coverage!(cx, proto => TcpStats {
                    supported { transport_socket }
                    ignored { update_period: "the kernel's statistics of connections are not kept" }
                });
                Self::build(transport_socket, scope, cx)
            }),
            "envoy.extensions.transport_sockets.tap.v3.Tap" => {
                Err(cx.error_at("typed_config", "not supported: tapping of connections"))
            }
            _ => Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                any.type_name()
            ))),
        }
    }

    fn client(&self) -> Option<&dyn ClientTransport> {
        match self {
            Self::RawBuffer => None,
            Self::Client(client) => Some(&**client),
        }
    }

    /// Wraps a connected stream. The caller limits the time.
    pub async fn connect(&self, stream: Stream, cx: TransportCx<'_>) -> Connected {
        match self.client() {
            None => Ok((stream, None)),
            Some(client) => client.connect(stream, cx).await,
        }
    }

    /// Whether bytes are protected.
    pub fn is_secure(&self) -> bool {
        self.client().is_some_and(ClientTransport::is_secure)
    }

    /// Where to connect to instead of the host.
    pub fn proxy_of(&self, host: &Host) -> Option<Address> {
        self.client()?.proxy_of(host)
    }

    /// What goes along to an internal listener.
    pub fn passthrough(&self, host: &Host, cluster: &Arc<Metadata>, shared: Option<&SharedObjects>) -> Passthrough {
        self.client()
            .map(|client| client.passthrough(host, cluster, shared))
            .unwrap_or_default()
    }

    /// Whether it tells the upstream of the client, so that clients must not share connections.
    pub fn speaks_proxy_protocol(&self) -> bool {
        self.client().is_some_and(ClientTransport::speaks_proxy_protocol)
    }
}

/// `envoy.transport_sockets.starttls` begins in plain text, and the filters that would begin TLS are not built in. The
/// TLS that would come is checked all the same.
fn start_tls(any: &Any, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<TransportSocket> {
    let proto = unpack::<UpstreamStartTlsConfig>(any, cx)?;
    coverage!(cx, proto => UpstreamStartTlsConfig { supported { cleartext_socket_config, tls_socket_config } });
    let _ = cleartext_socket_config;
    cx.required("tls_socket_config", tls_socket_config, |tls, cx| {
        ClientTls::build(&xds_protos::any::pack(&tls), scope, cx)
    })?;
    Ok(TransportSocket::RawBuffer)
}

impl ClientTransport for ClientTls {
    fn connect<'a>(
        &'a self,
        stream: Stream,
        cx: TransportCx<'a>,
    ) -> LocalBoxFuture<'a, Result<(Stream, Option<Arc<TlsInfo>>), HandshakeError>> {
        let options = ClientOptions {
            sni: cx.options.and_then(|o| o.sni.as_ref()),
            verify_sans: cx.options.map_or(&[], |o| &o.verify_sans),
            alpn: cx.options.map_or(&[], |o| &o.alpn),
            default_alpn: cx.alpn,
            hostname: &cx.host.hostname,
            address: match &cx.host.address {
                Address::Ip(address) => Some(address.ip()),
                _ => None,
            },
        };
        Box::pin(async move {
            let (stream, tls) = ClientTls::connect(self, stream, options).await?;
            Ok((stream, Some(Arc::new(tls))))
        })
    }

    fn is_secure(&self) -> bool {
        true
    }
}

/// The transport sockets of a cluster: the default, and those for endpoints that match.
#[derive(Debug, Clone)]
pub struct TransportSockets {
    default: TransportSocket,
    matches: Vec<Match>,
    matcher: Option<Arc<SocketMatcher>>,
}

/// A socket for some endpoints.
#[derive(Clone)]
struct Match {
    criteria: Struct,
    socket: TransportSocket,
    /// `<name>.total_match_count`
    count: Counter,
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Match").field(&self.socket).finish()
    }
}

const MATCH_KEY: &str = "envoy.transport_socket_match";

impl TransportSockets {
    /// Builds all of them.
    pub fn build(
        default: Option<Proto>,
        matches: Vec<TransportSocketMatch>,
        matcher: Option<Matcher>,
        scope: &Scope,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let default = cx.field("transport_socket", |cx| TransportSocket::build(default, scope, cx))?;
        let names: Vec<String> = matches.iter().map(|m| m.name.clone()).collect();
        let matches = cx.each("transport_socket_matches", matches, |proto, cx| {
            let TransportSocketMatch {
                name,
                r#match,
                transport_socket,
            } = proto;
            let socket = cx.field("transport_socket", |cx| {
                TransportSocket::build(transport_socket, scope, cx)
            })?;
            Ok(Match {
                criteria: r#match.unwrap_or_default(),
                socket,
                count: scope.counter(&format!("{name}.total_match_count")),
            })
        })?;
        let matcher = cx.opt("transport_socket_matcher", matcher, |proto, cx| {
            SocketMatcher::build(proto, &names, cx).map(Arc::new)
        })?;
        Ok(Self {
            default,
            matches,
            matcher,
        })
    }

    /// The socket for a host: the first whose criteria the endpoint's metadata has, or else its locality's.
    pub fn for_host(&self, host: &Host) -> &TransportSocket {
        if self.matches.is_empty() {
            return &self.default;
        }
        let attributes = host.attributes();
        self.find(&attributes).map_or(&self.default, |found| &found.socket)
    }

    /// Counts the choice for a new endpoint; false where it is the default socket.
    pub(super) fn count(&self, of: &HostAttributes) -> bool {
        let found = self.find(of);
        found.inspect(|found| found.count.inc()).is_some()
    }

    /// The first whose criteria the endpoint has, or else the first whose criteria its locality has.
    fn find(&self, of: &HostAttributes) -> Option<&Match> {
        if let Some(matcher) = &self.matcher {
            return matcher.find(of).and_then(|at| self.matches.get(at));
        }
        let having = |metadata: &Metadata| self.matches.iter().find(|m| has_all(metadata, &m.criteria));
        having(&of.metadata).or_else(|| having(&of.locality_metadata))
    }

    /// Whether ALPN can be settled over all of them.
    pub fn all_support_alpn(&self) -> bool {
        self.default.is_secure() && self.matches.iter().all(|m| m.socket.is_secure())
    }

    /// Whether any of them tells the upstream of the client.
    pub fn speaks_proxy_protocol(&self) -> bool {
        let mut all = std::iter::once(&self.default).chain(self.matches.iter().map(|m| &m.socket));
        all.any(TransportSocket::speaks_proxy_protocol)
    }

    /// Whether the default socket protects bytes.
    pub fn is_secure(&self) -> bool {
        self.default.is_secure()
    }
}

fn has_all(metadata: &Metadata, criteria: &Struct) -> bool {
    if criteria.fields.is_empty() {
        return true;
    }
    let Some(have) = metadata.get(MATCH_KEY) else {
        return false;
    };
    criteria
        .fields
        .iter()
        .all(|(key, value)| have.fields.get(key) == Some(value))
}
