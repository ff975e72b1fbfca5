//! What is known of a downstream connection.

use std::{
    cell::{Cell, RefCell},
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    sync::{Arc, LazyLock, OnceLock, atomic::AtomicU64},
    time::SystemTime,
};

use http::Version;
use rustls_pki_types::CertificateDer;
use xds_protos::envoy::config::core::v3::{Metadata as ProtoMetadata, TrafficDirection};

use super::{FilterState, FindingSlot, Flag, Metadata, Outcome, ResponseFlags, UpstreamInfo};
use crate::net::{Address, OriginalSource};

/// Filter state that says in which network namespace a connection was accepted.
pub const NETWORK_NAMESPACE: &str = "envoy.network.network_namespace";

/// A downstream connection's facts, shared by all its streams.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Unique in the process: `%CONNECTION_ID%`.
    pub id: u64,
    /// Address the client connected to, restored where a listener filter did so.
    pub local_address: Address,
    /// Whether `local_address` is not the socket's: the connection was redirected, or a proxy in front told so.
    pub local_address_restored: bool,
    /// The client's address, as PROXY protocol may have replaced it.
    pub remote_address: Address,
    /// The peer of the socket: `%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%`.
    pub direct_remote_address: Address,
    /// When it was accepted.
    pub start_time: SystemTime,
    /// SNI, from TLS or from the inspector: `%REQUESTED_SERVER_NAME%`.
    pub server_name: Option<Arc<str>>,
    /// TLS facts; none for plain text.
    pub tls: Option<Arc<TlsInfo>>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// JA3 fingerprint of the ClientHello, where the inspector was asked for it: `%TLS_JA3_FINGERPRINT%`.
    pub ja3: Option<Arc<str>>,
    /// JA4 fingerprint, likewise.
    pub ja4: Option<Arc<str>>,
    /// Where upstream connections are to come from, by the `original_src` listener filter.
    pub original_source: Option<OriginalSource>,
    /// What the client speaks, once that is known: `%PROTOCOL%` of the connection's own log.
    pub protocol: Cell<Option<Version>>,
    /// `Listener.metadata`
    pub listener_metadata: Option<Arc<ProtoMetadata>>,
    /// `FilterChain.metadata` of the matched chain.
    pub filter_chain_metadata: Option<Arc<ProtoMetadata>>,
    /// `Listener.traffic_direction`
    pub direction: TrafficDirection,
    /// `Listener.per_connection_buffer_limit_bytes`
    pub buffer_limit: u32,
    /// Name of the matched filter chain: `%FILTER_CHAIN_NAME%`.
    pub filter_chain: Arc<str>,
    /// Dynamic metadata set by listener and network filters.
    pub metadata: RefCell<Metadata>,
    /// Filter state of the connection's life.
    pub filter_state: RefCell<FilterState>,
    /// `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`
    pub transport_failure: RefCell<Option<String>>,
    /// What went wrong with it, as far as network filters know: `%RESPONSE_FLAGS%` of proxied bytes.
    pub flags: Cell<ResponseFlags>,
    /// The same in words: `%RESPONSE_CODE_DETAILS%`.
    pub code_details: Cell<Option<&'static str>>,
    /// Why this side has cut the connection: `%DOWNSTREAM_LOCAL_CLOSE_REASON%`.
    pub local_close: Cell<Option<&'static str>>,
    /// Bytes that were read and are held back by network filters: received, and not forwarded.
    pub held: Arc<AtomicU64>,
    /// What the filter that served the connection has to say of it, where somebody wants to know: the listener's log.
    pub outcome: RefCell<Option<Box<Outcome>>>,
    /// Where what is found out is told to the upstream connection that this internal connection is the other end of.
    pub told: Option<FindingSlot>,
    /// Who wants to see the upstream of the connection when it has one.
    pub upstream_watchers: UpstreamWatchers,
    /// Why a network filter ended the connection: `%CONNECTION_TERMINATION_DETAILS%` of proxied bytes.
    pub termination_details: RefCell<Option<String>>,
}

impl ConnectionInfo {
    /// What stands for a connection where there is no client.
    pub fn of_nobody() -> Self {
        let nowhere = || Address::Ip((Ipv4Addr::LOCALHOST, 0).into());
        Self {
            id: 0,
            local_address: nowhere(),
            local_address_restored: false,
            remote_address: nowhere(),
            direct_remote_address: nowhere(),
            start_time: SystemTime::now(),
            server_name: None,
            tls: None,
            listener: "".into(),
            ja3: None,
            ja4: None,
            original_source: None,
            listener_metadata: None,
            filter_chain_metadata: None,
            protocol: Default::default(),
            direction: Default::default(),
            buffer_limit: 0,
            filter_chain: "".into(),
            metadata: Default::default(),
            filter_state: Default::default(),
            transport_failure: Default::default(),
            flags: Default::default(),
            code_details: Default::default(),
            local_close: Default::default(),
            held: Default::default(),
            outcome: Default::default(),
            termination_details: Default::default(),
            told: None,
            upstream_watchers: Default::default(),
        }
    }

    /// Notes why a network filter closes the connection.
    pub fn fail(&self, flag: Flag, details: &'static str) {
        let mut flags = self.flags.get();
        flags.set(flag);
        self.flags.set(flags);
        self.code_details.set(Some(details));
    }

    /// The connection has its upstream: tells whoever waits to see it.
    pub fn upstream_ready(&self, upstream: &UpstreamInfo) {
        let watchers = std::mem::take(&mut *self.upstream_watchers.0.borrow_mut());
        for watch in watchers {
            watch(self, upstream);
        }
    }

    /// Whether the client is on this machine: a unix socket, a loopback address (127.0.0.1 and ::1 alone, as for
    /// Envoy), or the address it connected to.
    pub fn is_local(&self) -> bool {
        match (&self.remote_address, self.remote_address.ip()) {
            (_, Some(ip)) => {
                ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST || self.local_address.ip() == Some(ip)
            }
            (address, None) => matches!(address, Address::Pipe(_)),
        }
    }

    /// Where a connection was to go that was redirected here.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        match (&self.local_address, self.local_address_restored) {
            (Address::Ip(address), true) => Some(*address),
            _ => None,
        }
    }
}

type Watch = Box<dyn FnOnce(&ConnectionInfo, &UpstreamInfo)>;

/// Network filters that want to see the upstream of a connection before the first of its bytes.
#[derive(Default)]
pub struct UpstreamWatchers(RefCell<Vec<Watch>>);

impl UpstreamWatchers {
    /// Calls `watch` when the connection has its upstream.
    pub fn add(&self, watch: impl FnOnce(&ConnectionInfo, &UpstreamInfo) + 'static) {
        self.0.borrow_mut().push(Box::new(watch));
    }
}

impl fmt::Debug for UpstreamWatchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamWatchers({})", self.0.borrow().len())
    }
}

/// What a TLS handshake settled, on either side. All names are those of the formatter's operators.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.2`, `TLSv1.3`
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite, as Envoy prints it.
    pub cipher: &'static str,
    /// Negotiated application protocol.
    pub alpn: Option<Arc<str>>,
    /// Server name sent or received.
    pub sni: Option<Arc<str>>,
    /// The group of the key exchange, as BoringSSL names it.
    pub group: &'static str,
    /// Who has issued the peer's certificate, of those that were validated.
    pub issuer: Cert,
    /// Hex of the session id; empty under TLS 1.3.
    pub session_id: String,
    /// Whether a peer certificate was given.
    pub peer_presented: bool,
    /// Whether it was validated.
    pub peer_validated: bool,
    /// The peer's certificate.
    pub peer: Cert,
    /// The certificate shown to the peer.
    pub local: Cert,
}

/// A certificate as a connection keeps it: shared, and read from its DER only when somebody asks for a field.
/// Without a certificate every field is empty.
#[derive(Clone, Default)]
pub struct Cert(Option<Arc<LazyCert>>);

/// Takes a chain apart.
type ReadCert = Box<dyn Fn(&[CertificateDer<'static>]) -> CertInfo + Send + Sync>;

struct LazyCert {
    chain: Vec<CertificateDer<'static>>,
    read: ReadCert,
    info: OnceLock<CertInfo>,
}

static NO_CERT: LazyLock<CertInfo> = LazyLock::new(CertInfo::default);

impl Cert {
    /// The certificate at the head of `chain`, which `read` takes apart when it is first asked.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        read: impl Fn(&[CertificateDer<'static>]) -> CertInfo + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(LazyCert {
            chain,
            read: Box::new(read),
            info: OnceLock::new(),
        })))
    }

    /// The certificates as they came, the leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.0.as_deref().map_or(&[], |c| &c.chain)
    }
}

impl Deref for Cert {
    type Target = CertInfo;

    fn deref(&self) -> &CertInfo {
        match &self.0 {
            Some(cert) => cert.info.get_or_init(|| (cert.read)(&cert.chain)),
            None => &NO_CERT,
        }
    }
}

impl From<CertInfo> for Cert {
    fn from(info: CertInfo) -> Self {
        Self(Some(Arc::new(LazyCert {
            chain: Vec::new(),
            read: Box::new(|_| CertInfo::default()),
            info: info.into(),
        })))
    }
}

impl fmt::Debug for Cert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Cert {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Cert {}

/// One certificate in the forms that logs, XFCC and RBAC read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// RFC 2253 subject.
    pub subject: String,
    /// RFC 2253 issuer.
    pub issuer: String,
    /// Hex serial number, lower-case.
    pub serial: String,
    /// Hex SHA-256 of the DER.
    pub sha256: String,
    /// Hex SHA-1 of the DER.
    pub sha1: String,
    /// Hex SHA-256 of every certificate that was shown, joined by commas.
    pub chain_sha256: String,
    /// Hex SHA-1 of every certificate that was shown.
    pub chain_sha1: String,
    /// Serial numbers of every certificate that was shown.
    pub chain_serials: String,
    /// URI SANs.
    pub uri_sans: Vec<String>,
    /// DNS SANs.
    pub dns_sans: Vec<String>,
    /// IP SANs as text.
    pub ip_sans: Vec<String>,
    /// Other names: those that are texts.
    pub other_names: Vec<String>,
    /// E-mail SANs.
    pub email_sans: Vec<String>,
    /// PEM of the leaf, URL-encoded (XFCC `Cert`).
    pub url_encoded_pem: String,
    /// PEM of the chain, URL-encoded (XFCC `Chain`).
    pub url_encoded_chain: String,
    /// Validity start, seconds since the epoch.
    pub not_before: i64,
    /// Validity end, seconds since the epoch.
    pub not_after: i64,
}
