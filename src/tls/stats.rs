//! Statistics of TLS contexts (`listener.<address>.ssl.*`, `cluster.<name>.ssl.*`).

use std::sync::OnceLock;

use rustls::{CommonState, HandshakeKind};

use super::{names, names::Named};
use crate::{
    stats::{Counter, Scope, Stats},
    stats_block,
};

stats_block! {
    /// `<listener or cluster>.ssl.*`
    pub struct SslStats {
        counter connection_error, "Handshakes that failed, other than by certificate validation";
        counter handshake, "Handshakes that succeeded";
        counter session_reused, "Handshakes that resumed a session";
        counter no_certificate, "Handshakes without a certificate of the peer";
        counter fail_verify_no_cert, "Handshakes that failed because the client gave no certificate";
        counter fail_verify_error, "Certificates that no trusted CA stands for";
        counter fail_verify_san, "Certificates without an accepted subject alternative name";
        counter fail_verify_cert_hash, "Certificates that are not among the pinned ones";
        counter ocsp_staple_failed, "Handshakes that failed for want of an OCSP response";
        counter ocsp_staple_omitted, "Handshakes without the OCSP response that was asked for";
        counter ocsp_staple_responses, "Handshakes with an OCSP response";
        counter ocsp_staple_requests, "Handshakes whose client asked for an OCSP response";
        counter was_key_usage_invalid, "RSA certificates of upstreams whose key usage does not allow it";
    }
}

stats_block! {
    /// `listener.<address>.server_ssl_socket_factory.*`
    pub struct ServerFactoryStats {
        counter ssl_context_update_by_sds, "Contexts rebuilt because a secret came";
        counter downstream_context_secrets_not_ready, "Connections closed because a secret is missing";
    }
}

stats_block! {
    /// `cluster.<name>.client_ssl_socket_factory.*`
    pub struct ClientFactoryStats {
        counter ssl_context_update_by_sds, "Contexts rebuilt because a secret came";
        counter upstream_context_secrets_not_ready, "Connections refused because a secret is missing";
    }
}

/// All statistics of one context. The counters by name (`ssl.ciphers.<name>`) are created at first use and kept.
#[derive(Debug)]
pub(super) struct SslCounters {
    pub block: Stats<SslStats>,
    scope: Scope,
    versions: Table,
    ciphers: Table,
    curves: Table,
    sigalgs: Table,
}

struct Table(Box<[OnceLock<Counter>]>);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({})", self.0.len())
    }
}

impl Table {
    fn new(len: usize) -> Self {
        Self((0..len).map(|_| OnceLock::new()).collect())
    }

    fn inc(&self, scope: &Scope, kind: &str, named: Option<Named>) {
        if let Some(Named { index, name }) = named
            && let Some(slot) = self.0.get(index)
        {
            slot.get_or_init(|| scope.counter(&format!("{kind}.{name}"))).inc();
        }
    }
}

impl SslCounters {
    /// The counters below `scope`, a listener's or a cluster's.
    pub fn new(scope: &Scope) -> Self {
        let scope = scope.scope("ssl");
        Self {
            block: scope.block(),
            scope,
            versions: Table::new(names::VERSIONS.len()),
            ciphers: Table::new(names::CIPHERS.len()),
            curves: Table::new(names::CURVES.len()),
            sigalgs: Table::new(names::SIGALGS.len()),
        }
    }

    /// Counts a handshake that succeeded.
    pub fn handshake(&self, conn: &CommonState) {
        let block = self.block.local();
        block.handshake.inc();
        if conn.handshake_kind() == Some(HandshakeKind::Resumed) {
            block.session_reused.inc();
        }
        if conn.peer_certificates().is_none() {
            block.no_certificate.inc();
        }
        let version = conn.protocol_version().and_then(names::version);
        self.versions.inc(&self.scope, "versions", version);
        let cipher = conn.negotiated_cipher_suite().and_then(|s| names::cipher(s.suite()));
        self.ciphers.inc(&self.scope, "ciphers", cipher);
        let curve = conn
            .negotiated_key_exchange_group()
            .and_then(|g| names::curve(g.name()));
        self.curves.inc(&self.scope, "curves", curve);
    }

    /// Counts the algorithm of a peer's signature.
    pub fn signature(&self, scheme: rustls::SignatureScheme) {
        self.sigalgs.inc(&self.scope, "sigalgs", names::sigalg(scheme));
    }
}
