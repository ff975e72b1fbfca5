//! Asking a certificate for its names outside of a handshake.

use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use xds_protos::envoy::extensions::transport_sockets::tls::v3::SubjectAltNameMatcher as Proto;

use super::{cert_info::general_names, validation::SanMatcher};
use crate::{
    config::{BuildCx, ConfigResult},
    http::stream_info::Cert,
};

/// A `SubjectAltNameMatcher` for the certificate of a peer.
#[derive(Debug)]
pub struct PeerSanMatcher(SanMatcher);

impl PeerSanMatcher {
    /// Builds the matcher.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        SanMatcher::build(proto, cx).map(Self)
    }

    /// Whether one of the certificate's names matches; never without a certificate.
    pub fn matches(&self, cert: &Cert) -> bool {
        let Some(leaf) = cert.chain().first() else {
            return false;
        };
        let Ok((_, cert)) = X509Certificate::from_der(leaf) else {
            return false;
        };
        general_names(&cert).iter().any(|name| self.0.matches(name))
    }
}
