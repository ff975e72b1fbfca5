//! The cluster's side: `UpstreamTlsContext`.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Weak},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, HandshakeKind, NoKeyLog, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use xds_protos::{envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext as Proto, google::protobuf::Any};

use super::{
    HandshakeError,
    common::{Common, Material},
    info::tls_info,
    params::Side,
    secrets::{Candidate, Rebuilt, SecretUser},
    stats::{ClientFactoryStats, SslCounters},
    validation::{ClientAuth, PeerVerifier, Purpose},
};
use crate::{
    config::{BuildCx, ConfigResult, unpack},
    http::stream_info::{Cert, TlsInfo},
    net::Stream,
    stats::{Scope, Stats},
};

/// A cluster's TLS context (`UpstreamTlsContext`): rotates under its connections.
pub struct ClientTls {
    common: Common,
    sni: Option<Arc<str>>,
    auto_host_sni: bool,
    session_keys: usize,
    counters: Arc<SslCounters>,
    factory: Stats<ClientFactoryStats>,
    state: ArcSwapOption<ClientState>,
}

/// What is built from the secrets of one moment.
pub(super) struct ClientState {
    config: Arc<ClientConfig>,
    local: Cert,
    verifier: Arc<PeerVerifier>,
}

/// What one handshake is done with.
struct Chosen {
    connector: TlsConnector,
    verifier: Arc<PeerVerifier>,
    local: Cert,
}

/// What one connection wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientOptions<'a> {
    /// Server name instead of the configured one.
    pub sni: Option<&'a Arc<str>>,
    /// SANs the peer must have instead of the configured matchers.
    pub verify_sans: &'a [Arc<str>],
    /// ALPN instead of the configured one; empty to keep that.
    pub alpn: &'a [Arc<str>],
    /// ALPN when neither the request nor the configuration names one.
    pub default_alpn: &'a [&'a str],
    /// The endpoint's host name, for `auto_host_sni`.
    pub hostname: &'a str,
    /// The endpoint's address: sessions are resumed with the same one only.
    pub address: Option<IpAddr>,
}

/// Sessions are kept for this many names and addresses, unless `max_session_keys` asks for more.
const SESSIONS: usize = 256;

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("common", &self.common)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Builds from an `UpstreamTlsContext`; secrets by SDS become init targets of `cx`. Statistics stand below
    /// `scope`, the cluster's.
    pub fn build(any: &Any, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let proto: Proto = unpack(any, cx)?;
        coverage!(cx, proto => Proto {
            supported { common_tls_context, sni, auto_host_sni, auto_sni_san_validation, max_session_keys }
            ignored { enforce_rsa_key_usage: "the key usage of an RSA certificate is always enforced" }
            rejected { allow_renegotiation: "renegotiation" }
        });
        let common = cx.field("common_tls_context", |cx| {
            Common::build(
                common_tls_context.unwrap_or_default(),
                Side::Client,
                auto_sni_san_validation,
                cx,
            )
        })?;
        if common.certificates.len() > 1 {
            return Err(cx.error("Multiple TLS certificates are not supported for client contexts"));
        }
        if sni.contains('\0') {
            return Err(cx.error_at("sni", "SNI names containing NULL-byte are not allowed"));
        }
        let context = Arc::new(Self {
            common,
            sni: Some(sni).filter(|s| !s.is_empty()).map(Into::into),
            auto_host_sni,
            session_keys: match max_session_keys {
                Some(max) if max.value == 0 => 0,
                Some(max) => SESSIONS.max(usize::try_from(max.value).unwrap_or(SESSIONS)),
                None => SESSIONS,
            },
            counters: Arc::new(SslCounters::new(scope)),
            factory: scope.scope("client_ssl_socket_factory").block(),
            state: ArcSwapOption::empty(),
        });
        let user: Arc<dyn SecretUser> = context.clone();
        let user: Weak<dyn SecretUser> = Arc::downgrade(&user);
        let server = cx.server.clone();
        let _building = server.secrets.building();
        context.common.register(&user);
        context.state.store(context.assemble(None, cx)?.map(Arc::new));
        server.secrets.add_context(Arc::downgrade(&context) as _);
        Ok(context)
    }

    /// Does the handshake on a connected stream. The caller limits the time.
    pub async fn connect(
        &self,
        stream: impl Into<Stream>,
        options: ClientOptions<'_>,
    ) -> Result<(Stream, TlsInfo), HandshakeError> {
        let Some(state) = self.state.load_full() else {
            self.factory.local().upstream_context_secrets_not_ready.inc();
            return Err(HandshakeError::not_ready());
        };
        let stream = stream.into();
        let (mut config, verifier) = state.for_sans(options.verify_sans);
        if self.common.key_log.as_ref().is_some_and(|log| !log.wants(&stream)) {
            let mut silent = ClientConfig::clone(&config);
            silent.key_log = Arc::new(NoKeyLog);
            config = Arc::new(silent);
        }
        let chosen = Chosen {
            connector: TlsConnector::from(config),
            verifier,
            local: state.local.clone(),
        };
        match stream {
            Stream::Tcp(tcp) => {
                let (stream, info) = self.handshake(chosen, tcp, options).await?;
                Ok((Stream::ClientTls(Box::new(stream)), info))
            }
            other => {
                let (stream, info) = self.handshake(chosen, other, options).await?;
                Ok((Stream::Other(Box::pin(stream)), info))
            }
        }
    }

    async fn handshake<S>(
        &self,
        chosen: Chosen,
        io: S,
        options: ClientOptions<'_>,
    ) -> Result<(TlsStream<S>, TlsInfo), HandshakeError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let sni = self.server_name(&options);
        let dns = sni
            .as_ref()
            .and_then(|name| ServerName::try_from(name.to_string()).ok());
        // An address stands for "no server name": rustls does not send it, and keeps sessions by it.
        let name = dns.unwrap_or_else(|| {
            let address = options.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            ServerName::IpAddress(address.into())
        });
        let Chosen {
            connector,
            verifier,
            local,
        } = chosen;
        let failed = |e: std::io::Error| HandshakeError::new(&e, Side::Client, &self.counters);
        let stream = match self.alpn(&options) {
            Some(alpn) => Box::pin(connector.with_alpn(alpn).connect(name.clone(), io)).await,
            None => Box::pin(connector.connect(name.clone(), io)).await,
        };
        let stream = stream.map_err(failed)?;
        let conn = stream.get_ref().1;
        let resumed = conn.handshake_kind() == Some(HandshakeKind::Resumed);
        let sent = match &name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        };
        let validated = verifier
            .finished(Purpose::Server, conn.peer_certificates(), sent, resumed)
            .map_err(|failure| HandshakeError::tls(&failure.into(), Side::Client, &self.counters))?;
        self.counters.handshake(conn);
        let info = tls_info(conn, sni, local, validated, &self.common.alpn, &verifier.trusted);
        Ok((stream, info))
    }

    fn server_name(&self, options: &ClientOptions<'_>) -> Option<Arc<str>> {
        if let Some(sni) = options.sni {
            return Some(sni.clone());
        }
        let host = options.hostname;
        if self.auto_host_sni && !host.is_empty() {
            // As in Envoy, an address is no name, and the configured name is not sent either.
            let is_name = host.parse::<IpAddr>().is_err();
            return is_name.then(|| host.into());
        }
        self.sni.clone()
    }

    /// The protocols to offer, where they are not those of the configuration.
    fn alpn(&self, options: &ClientOptions<'_>) -> Option<Vec<Vec<u8>>> {
        if !options.alpn.is_empty() {
            return Some(options.alpn.iter().map(|p| p.as_bytes().to_vec()).collect());
        }
        if self.common.alpn.is_empty() && !options.default_alpn.is_empty() {
            return Some(options.default_alpn.iter().map(|p| p.as_bytes().to_vec()).collect());
        }
        None
    }

    /// Whether all secrets are there.
    pub fn is_ready(&self) -> bool {
        self.state.load().is_some()
    }
}

impl ClientState {
    /// The configuration for a peer that must have one of these SANs. A verifier of its own also keeps sessions
    /// apart: rustls resumes none that another verifier let through.
    fn for_sans(&self, sans: &[Arc<str>]) -> (Arc<ClientConfig>, Arc<PeerVerifier>) {
        if sans.is_empty() {
            return (self.config.clone(), self.verifier.clone());
        }
        let verifier = Arc::new(PeerVerifier {
            trusted: Arc::default(),
            validator: self.verifier.validator.clone(),
            auth: ClientAuth::None,
            provider: self.verifier.provider.clone(),
            counters: self.verifier.counters.clone(),
            subjects: Vec::new(),
            expected_sans: sans.to_vec(),
        });
        let mut config = ClientConfig::clone(&self.config);
        config.dangerous().set_certificate_verifier(verifier.clone());
        (Arc::new(config), verifier)
    }
}

impl Rebuilt for ClientTls {
    type State = ClientState;

    fn assemble(&self, candidate: Option<&Candidate<'_>>, cx: &mut BuildCx<'_>) -> ConfigResult<Option<ClientState>> {
        let Some(material) = self.common.material(candidate, cx)? else {
            return Ok(None);
        };
        let validator = material.validator.filter(|v| v.verifies());
        if validator.is_none() {
            tracing::debug!("an upstream TLS context without a trusted CA accepts every certificate");
        }
        let params = &self.common.params;
        let verifier = Arc::new(PeerVerifier {
            trusted: Arc::default(),
            validator,
            auth: ClientAuth::None,
            provider: params.provider.clone(),
            counters: self.counters.clone(),
            subjects: Vec::new(),
            expected_sans: Vec::new(),
        });
        let identity = material.identities.first();
        let key = identity.map(|i| i.key_for(&params.schemes));
        let mut config = ClientConfig::builder_with_provider(params.provider.clone())
            .with_protocol_versions(&params.versions)
            .map_err(|e| cx.error(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(ClientIdentity(key)));
        config.alpn_protocols = self.common.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config.resumption = match self.session_keys {
            0 => Resumption::disabled(),
            keys => Resumption::in_memory_sessions(keys),
        };
        if let Some(log) = &self.common.key_log {
            config.key_log = log.clone();
        }
        Ok(Some(ClientState {
            config: Arc::new(config),
            local: identity.map(|i| i.info.clone()).unwrap_or_default(),
            verifier,
        }))
    }

    fn state(&self) -> &ArcSwapOption<ClientState> {
        &self.state
    }

    fn count_update(&self) {
        self.factory.local().ssl_context_update_by_sds.inc();
    }
}

impl super::admin::TlsContext for ClientTls {
    fn material(&self, cx: &mut BuildCx<'_>) -> Option<Material> {
        self.common.material(None, cx).ok().flatten()
    }
}

/// The certificate for servers that ask for one, whatever CAs they name.
#[derive(Debug)]
struct ClientIdentity(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone().filter(|key| key.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
