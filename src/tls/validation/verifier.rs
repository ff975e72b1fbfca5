//! A [`Validator`] where rustls asks.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ClientAuth, Expected, FailureKind, Purpose, Validator, VerifyFailure};
use crate::tls::stats::SslCounters;

/// Verifies the peers of one context.
#[derive(Debug)]
pub(in crate::tls) struct PeerVerifier {
    /// None: whatever is shown is accepted and counts as not validated, as in Envoy without a validation context.
    pub validator: Option<Arc<Validator>>,
    pub auth: ClientAuth,
    pub provider: Arc<CryptoProvider>,
    pub counters: Arc<SslCounters>,
    /// Trusted CAs, to tell who has issued a certificate.
    pub trusted: Arc<Vec<CertificateDer<'static>>>,
    /// Subjects of the trusted CAs, for clients.
    pub subjects: Vec<DistinguishedName>,
    /// SANs instead of the configured matchers.
    pub expected_sans: Vec<Arc<str>>,
}

impl PeerVerifier {
    /// Verifies a chain and counts what is wrong with it, also where that is let pass (`ACCEPT_UNTRUSTED`); true when
    /// it counts as validated.
    pub fn verify(
        &self,
        purpose: Purpose,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        sni: Option<&str>,
        now: UnixTime,
    ) -> Result<bool, VerifyFailure> {
        let verified = self.judge(purpose, chain, sni, now);
        if let Err(failure) = &verified {
            let stats = self.counters.block.local();
            match failure.kind {
                FailureKind::Chain => stats.fail_verify_error.inc(),
                FailureKind::San => stats.fail_verify_san.inc(),
                FailureKind::Hash => stats.fail_verify_cert_hash.inc(),
            }
        }
        match verified {
            Err(_) if self.accepts_untrusted() => Ok(false),
            other => other,
        }
    }

    /// The same without counting, and without mercy.
    fn judge(
        &self,
        purpose: Purpose,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        sni: Option<&str>,
        now: UnixTime,
    ) -> Result<bool, VerifyFailure> {
        let Some(validator) = &self.validator else {
            return Ok(false);
        };
        let expected = Expected {
            sni,
            sans: &self.expected_sans,
        };
        validator.verify(purpose, chain.0, chain.1, expected, now)
    }

    fn accepts_untrusted(&self) -> bool {
        self.validator.as_ref().is_some_and(|v| v.accepts_untrusted())
    }

    /// Whether the peer of a finished handshake counts as validated. The certificate of a resumed session is
    /// verified again, as in Envoy: it may have expired since.
    pub fn finished(
        &self,
        purpose: Purpose,
        certificates: Option<&[CertificateDer<'_>]>,
        sni: Option<&str>,
        resumed: bool,
    ) -> Result<bool, VerifyFailure> {
        let (Some([leaf, intermediates @ ..]), Some(_)) = (certificates, &self.validator) else {
            return Ok(false);
        };
        let now = UnixTime::now();
        match (resumed, self.accepts_untrusted()) {
            (true, _) => self.verify(purpose, (leaf, intermediates), sni, now),
            (false, true) => Ok(self.judge(purpose, (leaf, intermediates), sni, now).unwrap_or(false)),
            (false, false) => Ok(true),
        }
    }

    fn tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.counters.signature(dss.scheme);
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.counters.signature(dss.scheme);
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
}

/// Signatures are verified the same way on both sides.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.tls12(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.tls13(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider
                .signature_verification_algorithms
                .supported_schemes()
        }
    };
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.auth != ClientAuth::None
    }

    fn client_auth_mandatory(&self) -> bool {
        self.auth == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(Purpose::Client, (end_entity, intermediates), None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let sni = match server_name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        };
        self.verify(Purpose::Server, (end_entity, intermediates), sni, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
