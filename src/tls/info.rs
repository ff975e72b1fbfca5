//! What a finished handshake settled, as logs and filters read it.

use std::sync::Arc;

use rustls::CommonState;
use rustls_pki_types::CertificateDer;

use super::{cert_info, names};
use crate::http::stream_info::{Cert, TlsInfo};

/// Reads a connection. `alpn` are the configured protocols, whose text is shared.
pub(super) fn tls_info(
    conn: &CommonState,
    sni: Option<Arc<str>>,
    local: Cert,
    validated: bool,
    alpn: &[Arc<str>],
    trusted: &Arc<Vec<CertificateDer<'static>>>,
) -> TlsInfo {
    let protocol = conn.alpn_protocol().map(|chosen| {
        let known = alpn.iter().find(|p| p.as_bytes() == chosen);
        known.map_or_else(|| String::from_utf8_lossy(chosen).into(), Arc::clone)
    });
    let peer = conn.peer_certificates();
    let issuer = match (peer, validated && !trusted.is_empty()) {
        (Some(chain), true) => {
            let trusted = trusted.clone();
            Cert::new(chain.to_vec(), move |chain| cert_info::issuer(chain, &trusted))
        }
        _ => Cert::default(),
    };
    TlsInfo {
        version: conn.protocol_version().and_then(names::version).map_or("", |v| v.name),
        cipher: conn
            .negotiated_cipher_suite()
            .and_then(|s| names::cipher(s.suite()))
            .map_or("", |c| c.name),
        alpn: protocol,
        sni,
        group: conn
            .negotiated_key_exchange_group()
            .map_or("", |group| names::group_name(group.name())),
        issuer,
        session_id: String::new(),
        peer_presented: peer.is_some(),
        peer_validated: peer.is_some() && validated,
        peer: peer.map(|chain| cert_info::lazy(chain.to_vec())).unwrap_or_default(),
        local,
    }
}
