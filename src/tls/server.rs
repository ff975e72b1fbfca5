//! The listener's side: `DownstreamTlsContext`.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use rustls::{
    CipherSuite, HandshakeKind, NoKeyLog, ServerConfig,
    server::{ClientHello, NoServerSessionStorage, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use xds_protos::{
    envoy::extensions::transport_sockets::tls::v3::{
        DownstreamTlsContext as Proto,
        downstream_tls_context::{OcspStaplePolicy, SessionTicketKeysType},
    },
    google::protobuf::Any,
};

use super::{
    HandshakeError,
    common::Common,
    info::tls_info,
    params::Side,
    secrets::{Candidate, Rebuilt, SecretKind, SecretSlot, SecretUser, SecretValue, Secrets},
    selection::Selector,
    stats::{ServerFactoryStats, SslCounters},
    tickets::{self, Tickets},
    validation::{ClientAuth, PeerVerifier, Purpose},
};
use crate::{
    config::{BuildCx, ConfigResult, duration, unpack},
    http::stream_info::{Cert, TlsInfo},
    net::Stream,
    stats::Stats,
};

/// A listener's TLS context (`DownstreamTlsContext`): rotates under its connections.
pub struct ServerTls {
    common: Common,
    require_client_certificate: bool,
    require_sni: bool,
    prefer_client_ciphers: bool,
    full_scan: bool,
    must_staple: bool,
    tickets: TicketSource,
    session_timeout: Option<std::time::Duration>,
    counters: Arc<SslCounters>,
    factory: Stats<ServerFactoryStats>,
    state: ArcSwapOption<ServerState>,
}

#[derive(Debug)]
enum TicketSource {
    /// `disable_stateless_session_resumption`
    Disabled,
    /// Keys of the process' own.
    Own,
    Static(Vec<Vec<u8>>),
    Secret(Arc<SecretSlot>),
}

/// What is built from the secrets of one moment: a configuration per certificate.
pub(super) struct ServerState {
    certificates: Vec<Certificate>,
    selector: Selector,
    verifier: Arc<PeerVerifier>,
}

/// One of the certificates, ready to be served.
struct Certificate {
    config: Variants,
    /// The same for clients with TLS 1.3, whose order of suites decides.
    in_clients_order: Variants,
    info: Cert,
}

/// A configuration, and the same for clients that offer only protocols we do not have: they are served without ALPN,
/// where rustls would refuse them.
#[derive(Clone)]
struct Variants {
    usual: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
}

impl Variants {
    fn new(config: ServerConfig) -> Self {
        let usual = Arc::new(config);
        let without_alpn = match usual.alpn_protocols.is_empty() {
            true => usual.clone(),
            false => {
                let mut config = ServerConfig::clone(&usual);
                config.alpn_protocols.clear();
                Arc::new(config)
            }
        };
        Self { usual, without_alpn }
    }
}

impl Certificate {
    /// What answers this client as BoringSSL would. In TLS 1.3 the client's order of suites decides (all are strong).
    fn config_for(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let offers_13 = hello.cipher_suites().iter().any(|suite| TLS13_SUITES.contains(suite));
        let config = if offers_13 {
            &self.in_clients_order
        } else {
            &self.config
        };
        let strange = hello
            .alpn()
            .is_some_and(|mut offered| !offered.any(|o| config.usual.alpn_protocols.iter().any(|ours| ours == o)));
        match strange {
            true => config.without_alpn.clone(),
            false => config.usual.clone(),
        }
    }
}

const TLS13_SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls")
            .field("common", &self.common)
            .finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Builds from a `DownstreamTlsContext`; secrets by SDS become init targets of `cx`.
    pub fn build(any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let proto: Proto = unpack(any, cx)?;
        coverage!(cx, proto => Proto {
            supported {
                common_tls_context, require_client_certificate, require_sni, session_timeout, ocsp_staple_policy,
                full_scan_certs_on_sni_mismatch, prefer_client_ciphers, session_ticket_keys_type,
            }
            ignored {
                disable_stateful_session_resumption: "sessions are only resumed by tickets"
            }
        });
        let common = cx.field("common_tls_context", |cx| {
            Common::build(common_tls_context.unwrap_or_default(), Side::Server, false, cx)
        })?;
        if common.certificates.is_empty() {
            return Err(cx.error("Server TlsCertificates must have a certificate specified"));
        }
        let tickets = match session_ticket_keys_type {
            None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(false)) => TicketSource::Own,
            Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) => TicketSource::Disabled,
            Some(SessionTicketKeysType::SessionTicketKeys(keys)) => {
                TicketSource::Static(cx.field("session_ticket_keys", |cx| tickets::read_keys(keys, cx))?)
            }
            Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(config)) => {
                TicketSource::Secret(cx.field("session_ticket_keys_sds_secret_config", |cx| {
                    Secrets::subscribe(config, SecretKind::TicketKeys, cx)
                })?)
            }
        };
        let policy = OcspStaplePolicy::try_from(ocsp_staple_policy).unwrap_or_default();
        let set = |flag: Option<xds_protos::google::protobuf::BoolValue>| flag.is_some_and(|b| b.value);
        let scope = cx.server.stats.scope(cx.listener_prefix.as_deref().unwrap_or_default());
        let context = Arc::new(Self {
            common,
            require_client_certificate: set(require_client_certificate),
            require_sni: set(require_sni),
            prefer_client_ciphers,
            full_scan: set(full_scan_certs_on_sni_mismatch),
            must_staple: policy == OcspStaplePolicy::MustStaple,
            tickets,
            session_timeout: session_timeout.as_ref().map(duration),
            counters: Arc::new(SslCounters::new(&scope)),
            factory: scope.scope("server_ssl_socket_factory").block(),
            state: ArcSwapOption::empty(),
        });
        let user: Arc<dyn SecretUser> = context.clone();
        let user: Weak<dyn SecretUser> = Arc::downgrade(&user);
        let server = cx.server.clone();
        let _building = server.secrets.building();
        context.common.register(&user);
        if let TicketSource::Secret(slot) = &context.tickets {
            slot.register(user);
        }
        context.state.store(context.assemble(None, cx)?.map(Arc::new));
        server.secrets.add_context(Arc::downgrade(&context) as _);
        Ok(context)
    }

    /// Takes the TLS handshake of a client. The caller limits the time.
    pub async fn accept(&self, stream: impl Into<Stream>) -> Result<(Stream, TlsInfo), HandshakeError> {
        let Some(state) = self.state.load_full() else {
            self.factory.local().downstream_context_secrets_not_ready.inc();
            return Err(HandshakeError::not_ready());
        };
        let stream = stream.into();
        let silent = self.common.key_log.as_ref().is_some_and(|log| !log.wants(&stream));
        match stream {
            Stream::Tcp(tcp) => {
                let (stream, info) = self.handshake(&state, tcp, silent).await?;
                Ok((Stream::ServerTls(Box::new(stream)), info))
            }
            other => {
                let (stream, info) = self.handshake(&state, other, silent).await?;
                Ok((Stream::Other(Box::pin(stream)), info))
            }
        }
    }

    /// `silent`: the key log is not for this connection.
    async fn handshake<S>(
        &self,
        state: &ServerState,
        io: S,
        silent: bool,
    ) -> Result<(TlsStream<S>, TlsInfo), HandshakeError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let counters = &*self.counters;
        let failed = |e: std::io::Error| HandshakeError::new(&e, Side::Server, counters);
        // Boxed: the handshake's state is large, and the connection's task would keep room for it all its life.
        let hello = Box::pin(LazyConfigAcceptor::new(Default::default(), io))
            .await
            .map_err(failed)?;
        let (config, local) = {
            let hello = hello.client_hello();
            if self.require_sni && hello.server_name().is_none() {
                counters.block.local().connection_error.inc();
                return Err(HandshakeError("TLS error: the client sent no server name".into()));
            }
            let certificate = match state.certificates.as_slice() {
                [only] => only,
                all => &all[state.selector.select(hello.server_name(), hello.signature_schemes())],
            };
            let mut config = certificate.config_for(&hello);
            if silent {
                let mut changed = ServerConfig::clone(&config);
                changed.key_log = Arc::new(NoKeyLog);
                config = Arc::new(changed);
            }
            (config, &certificate.info)
        };
        let stream = Box::pin(hello.into_stream(config)).await.map_err(failed)?;
        let conn = stream.get_ref().1;
        let resumed = conn.handshake_kind() == Some(HandshakeKind::Resumed);
        let validated = state
            .verifier
            .finished(Purpose::Client, conn.peer_certificates(), None, resumed)
            .map_err(|failure| HandshakeError::tls(&failure.into(), Side::Server, counters))?;
        counters.handshake(conn);
        let sni = conn.server_name().map(Arc::from);
        let info = tls_info(
            conn,
            sni,
            local.clone(),
            validated,
            &self.common.alpn,
            &state.verifier.trusted,
        );
        Ok((stream, info))
    }

    /// Whether all secrets are there.
    pub fn is_ready(&self) -> bool {
        self.state.load().is_some()
    }
}

impl Rebuilt for ServerTls {
    type State = ServerState;

    fn assemble(&self, candidate: Option<&Candidate<'_>>, cx: &mut BuildCx<'_>) -> ConfigResult<Option<ServerState>> {
        let Some(material) = self.common.material(candidate, cx)? else {
            return Ok(None);
        };
        let ticket_keys = match &self.tickets {
            TicketSource::Disabled => None,
            TicketSource::Own => Some(Arc::default()),
            TicketSource::Static(keys) => Some(Arc::new(keys.clone())),
            TicketSource::Secret(slot) => match slot.value(candidate) {
                Some(SecretValue::TicketKeys(keys)) => Some(keys),
                _ => return Ok(None),
            },
        };
        let params = &self.common.params;
        let validator = material.validator.filter(|v| v.verifies());
        let auth = validator
            .as_ref()
            .map_or(ClientAuth::None, |v| v.client_auth(self.require_client_certificate));
        if auth == ClientAuth::None && self.require_client_certificate {
            cx.ignored(
                "require_client_certificate",
                "as in Envoy, it does nothing without a trusted CA",
            );
        }
        // What tickets are bound to: whoever resumes has passed exactly these checks, under these names.
        let mut binding = validator.as_ref().map(|v| v.digest.to_vec()).unwrap_or_default();
        binding.push(auth as u8);
        for identity in &material.identities {
            binding.extend(identity.names.iter().flat_map(|n| n.bytes().chain([0])));
        }
        let tickets = ticket_keys.and_then(|keys| Tickets::new(&keys, &binding, self.session_timeout));
        let verifier = Arc::new(PeerVerifier {
            trusted: validator.as_ref().map(|v| v.trusted_chain()).unwrap_or_default(),
            subjects: validator.as_ref().map(|v| v.subjects()).unwrap_or_default(),
            validator,
            auth,
            provider: params.provider.clone(),
            counters: self.counters.clone(),
            expected_sans: Vec::new(),
        });
        let mut certificates = Vec::with_capacity(material.identities.len());
        for identity in &material.identities {
            if self.must_staple && identity.key.ocsp.is_none() {
                return Err(cx.error("Required OCSP response is missing from TLS context"));
            }
            let own = match identity.params.clone() {
                Some(own) => Some(cx.field("tls_certificates.tls_params", |cx| params.replaced_by(own, cx))?),
                None => None,
            };
            let params = own.as_ref().unwrap_or(params);
            let key = identity.key_for(&params.schemes);
            let mut config = ServerConfig::builder_with_provider(params.provider.clone())
                .with_protocol_versions(&params.versions)
                .map_err(|e| cx.error(e.to_string()))?
                .with_client_cert_verifier(verifier.clone() as Arc<dyn ClientCertVerifier>)
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
            config.ignore_client_order = !self.prefer_client_ciphers;
            config.alpn_protocols = self.common.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
            config.session_storage = Arc::new(NoServerSessionStorage {});
            match &tickets {
                Some(tickets) => {
                    config.ticketer = tickets.clone();
                    config.send_tls13_tickets = 1;
                }
                None => config.send_tls13_tickets = 0,
            }
            if let Some(log) = &self.common.key_log {
                config.key_log = log.clone();
            }
            let in_clients_order = config.ignore_client_order.then(|| {
                let mut config = config.clone();
                config.ignore_client_order = false;
                Variants::new(config)
            });
            let config = Variants::new(config);
            let in_clients_order = in_clients_order.unwrap_or_else(|| config.clone());
            certificates.push(Certificate {
                config,
                in_clients_order,
                info: identity.info.clone(),
            });
        }
        Ok(Some(ServerState {
            selector: Selector::new(&material.identities, self.full_scan),
            certificates,
            verifier,
        }))
    }

    fn state(&self) -> &ArcSwapOption<ServerState> {
        &self.state
    }

    fn count_update(&self) {
        self.factory.local().ssl_context_update_by_sds.inc();
    }
}

impl super::admin::TlsContext for ServerTls {
    fn material(&self, cx: &mut BuildCx<'_>) -> Option<super::common::Material> {
        self.common.material(None, cx).ok().flatten()
    }
}
