//! `CertificateValidationContext`: which certificates of a peer are accepted, in Envoy's order: the chain up to a
//! trusted CA, then subject alternative names, then pinned hashes.

mod chain;
mod san;
mod spiffe;
mod verifier;

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{CertificateError, OtherError, crypto::WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use xds_protos::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext as Proto, certificate_validation_context::TrustChainVerification,
};

pub(in crate::tls) use self::san::SanMatcher;
use self::{chain::TrustStore, spiffe::TrustDomains};
pub(super) use self::{
    chain::{Purpose, describe_error},
    verifier::PeerVerifier,
};
use super::{cert_info, certificate::path_of};
use crate::config::{AnyExt, BuildCx, ConfigResult, read_data_source};

/// Accepts or refuses certificates of peers.
#[derive(Debug)]
pub(super) struct Validator {
    trust: Trust,
    sans: Vec<SanMatcher>,
    hashes: Vec<[u8; 32]>,
    spkis: Vec<[u8; 32]>,
    accept_untrusted: bool,
    auto_sni_san: bool,
    suppress_ca_list: bool,
    /// SHA-256 of everything that decides: sessions are not resumed across different ones.
    pub digest: [u8; 32],
    /// File name of the trusted CA, or `<inline>`.
    pub ca_path: String,
}

#[derive(Debug)]
enum Trust {
    /// Nothing to verify a chain against.
    None,
    /// `trusted_ca`
    Store(TrustStore),
    /// `envoy.tls.cert_validator.spiffe`
    Spiffe(TrustDomains),
}

/// Whether a server asks its clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// Does not ask.
    None,
    /// Asks, and takes none for an answer.
    Optional,
    /// Ends the handshake without one.
    Required,
}

/// Why a certificate was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(super) struct VerifyFailure {
    pub kind: FailureKind,
    /// Envoy's words, as they end `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub text: String,
    /// What decides which alert is sent.
    pub error: CertificateError,
}

/// Which statistic counts a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    Chain,
    San,
    Hash,
}

impl VerifyFailure {
    fn new(kind: FailureKind, text: impl Into<String>, error: CertificateError) -> Self {
        Self {
            kind,
            text: text.into(),
            error,
        }
    }

    fn chain(text: impl Into<String>, error: CertificateError) -> Self {
        Self::new(
            FailureKind::Chain,
            format!("verify cert failed: {}", text.into()),
            error,
        )
    }
}

impl From<VerifyFailure> for rustls::Error {
    fn from(failure: VerifyFailure) -> Self {
        // The usual ones go as rustls' own, so that the peer is sent the alert that says what is wrong.
        if chain::text(&failure.error).is_some_and(|text| failure.text.ends_with(text)) {
            return Self::InvalidCertificate(failure.error);
        }
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(failure))))
    }
}

/// What the peer's name must be beyond the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expected<'a> {
    /// The server name that was sent, for `auto_sni_san_validation`.
    pub sni: Option<&'a str>,
    /// SANs instead of the configured matchers (`auto_san_validation`).
    pub sans: &'a [Arc<str>],
}

impl Validator {
    /// Reads a validation context; none when it decides nothing. `auto_sni_san` is the upstream's
    /// `auto_sni_san_validation`.
    pub fn build(
        proto: Proto,
        auto_sni_san: bool,
        algorithms: WebPkiSupportedAlgorithms,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&xds_protos::prost::Message::encode_to_vec(&proto));
        coverage!(cx, proto => Proto {
            supported {
                trusted_ca, watched_directory, system_root_certs, verify_certificate_spki, verify_certificate_hash,
                match_typed_subject_alt_names, match_subject_alt_names, crl, allow_expired_certificate,
                trust_chain_verification, custom_validator_config, only_verify_leaf_cert_crl, max_verify_depth,
                suppress_client_ca_list,
            }
            rejected {
                ca_certificate_provider_instance: "certificate provider plugins",
                require_signed_certificate_timestamp: "certificate transparency",
            }
        });
        // A secret's files are watched by whoever subscribed to it.
        let _ = watched_directory;
        let ca_path = path_of(trusted_ca.as_ref());
        let mut ca = cx.opt("trusted_ca", trusted_ca, read_data_source)?.unwrap_or_default();
        if ca.is_empty() && system_root_certs.is_some() {
            ca = chain::system_roots()
                .ok_or_else(|| cx.error_at("system_root_certs", "the system's CA certificates were not found"))?;
        }
        let crl_path = path_of(crl.as_ref());
        let crl = cx.opt("crl", crl, read_data_source)?.unwrap_or_default();
        hash.update(&ca);
        hash.update(&crl);
        let mut sans = cx.each(
            "match_typed_subject_alt_names",
            match_typed_subject_alt_names,
            SanMatcher::build,
        )?;
        if sans.is_empty() {
            let old = cx.each("match_subject_alt_names", match_subject_alt_names, SanMatcher::untyped)?;
            sans.extend(old.into_iter().flatten());
        }
        let custom = custom_validator_config.map(|c| c.typed_config.unwrap_or_default());
        let trust = match custom {
            Some(any) if any.type_name() == "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig" => {
                sans.retain(SanMatcher::is_uri);
                let domains = cx.field("custom_validator_config", |cx| {
                    TrustDomains::build(&any, allow_expired_certificate, algorithms, &mut hash, cx)
                })?;
                Trust::Spiffe(domains)
            }
            Some(any) if !any.type_url.is_empty() => {
                return Err(cx.error_at(
                    "custom_validator_config",
                    format!(
                        "Didn't find a registered implementation for type: '{}'",
                        any.type_name()
                    ),
                ));
            }
            _ if ca.is_empty() => {
                if !crl.is_empty() {
                    return Err(cx.error(format!("Failed to load CRL from {crl_path} without trusted CA")));
                }
                if !sans.is_empty() {
                    return Err(cx.error(
                        "SAN-based verification of peer certificates without trusted CA is insecure and not allowed",
                    ));
                }
                if allow_expired_certificate {
                    return Err(cx.error("Certificate validity period is always ignored without trusted CA"));
                }
                if auto_sni_san {
                    return Err(cx.error("'auto_sni_san_validation' was configured without configuring a trusted CA"));
                }
                Trust::None
            }
            _ => {
                let mut store = TrustStore::from_pem(&ca, algorithms)
                    .map_err(|_| cx.error(format!("Failed to load trusted CA certificates from {ca_path}")))?;
                if !crl.is_empty() {
                    store
                        .add_crls(&crl)
                        .map_err(|e| cx.error(format!("Failed to load CRL from {crl_path}: {e}")))?;
                }
                store.allow_expired = allow_expired_certificate;
                store.leaf_crl_only = only_verify_leaf_cert_crl;
                store.max_depth = max_verify_depth.map(|d| d.value);
                Trust::Store(store)
            }
        };
        let hashes = verify_certificate_hash
            .into_iter()
            .map(|text| {
                let plain: String = text.chars().filter(|c| *c != ':').collect();
                sha256_of_hex(&plain).ok_or_else(|| {
                    cx.error_at("verify_certificate_hash", format!("Invalid hex-encoded SHA-256 {text}"))
                })
            })
            .collect::<ConfigResult<_>>()?;
        let spkis = verify_certificate_spki
            .into_iter()
            .map(|text| {
                let bytes = STANDARD.decode(&text).ok().and_then(|b| b.try_into().ok());
                bytes.ok_or_else(|| {
                    cx.error_at(
                        "verify_certificate_spki",
                        format!("Invalid base64-encoded SHA-256 {text}"),
                    )
                })
            })
            .collect::<ConfigResult<_>>()?;
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Ok(Self {
            trust,
            sans,
            hashes,
            spkis,
            accept_untrusted: trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32,
            auto_sni_san,
            suppress_ca_list: suppress_client_ca_list,
            digest,
            ca_path,
        })
    }

    /// Whether a server with this context asks for certificates. As in Envoy, `require_client_certificate` needs a
    /// trusted CA to have a meaning, and SAN matchers and pins ask by themselves.
    pub fn client_auth(&self, require: bool) -> ClientAuth {
        let pinned = !(self.sans.is_empty() && self.hashes.is_empty() && self.spkis.is_empty());
        match &self.trust {
            Trust::Spiffe(_) => ClientAuth::Required,
            Trust::Store(_) if require => ClientAuth::Required,
            _ if self.accept_untrusted => ClientAuth::Optional,
            _ if pinned => ClientAuth::Required,
            Trust::Store(_) => ClientAuth::Optional,
            Trust::None => ClientAuth::None,
        }
    }

    /// `ACCEPT_UNTRUSTED`: a refusal only means that the certificate does not count as validated.
    pub fn accepts_untrusted(&self) -> bool {
        self.accept_untrusted
    }

    /// Whether anything is verified at all.
    pub fn verifies(&self) -> bool {
        self.client_auth(false) != ClientAuth::None
    }

    /// Subjects of the trusted CAs, to be told to clients.
    pub fn subjects(&self) -> Vec<rustls::DistinguishedName> {
        match &self.trust {
            _ if self.suppress_ca_list => Vec::new(),
            Trust::Store(store) => store.subjects(),
            Trust::Spiffe(domains) => domains.subjects(),
            Trust::None => Vec::new(),
        }
    }

    /// The trusted CA certificates.
    pub fn trusted(&self) -> Vec<&CertificateDer<'static>> {
        match &self.trust {
            Trust::Store(store) => store.certificates().collect(),
            Trust::Spiffe(domains) => domains.certificates().collect(),
            Trust::None => Vec::new(),
        }
    }

    /// The same, shared with what is known of connections.
    pub fn trusted_chain(&self) -> Arc<Vec<CertificateDer<'static>>> {
        Arc::new(self.trusted().into_iter().cloned().collect())
    }

    /// Verifies a peer. Ok tells whether the certificate counts as validated (`peerCertificateValidated`).
    pub fn verify(
        &self,
        purpose: Purpose,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        expected: Expected<'_>,
        now: UnixTime,
    ) -> Result<bool, VerifyFailure> {
        let chain = match &self.trust {
            Trust::None => Ok(false),
            Trust::Store(store) => store.verify(purpose, leaf, intermediates, now).map(|()| true),
            Trust::Spiffe(domains) => domains.verify(purpose, leaf, intermediates, now).map(|()| true),
        };
        let trusted = chain?;
        Ok(self.names_and_pins(leaf, expected)? || trusted)
    }

    /// SANs and pins; true when there were any.
    fn names_and_pins(&self, leaf: &CertificateDer<'_>, expected: Expected<'_>) -> Result<bool, VerifyFailure> {
        let mut matched = false;
        let sni = expected.sni.filter(|_| self.auto_sni_san);
        if !expected.sans.is_empty() || sni.is_some() || !self.sans.is_empty() {
            let parsed = X509Certificate::from_der(leaf);
            let names = parsed.as_ref().map_or(&[][..], |(_, c)| cert_info::general_names(c));
            let expected_found = expected
                .sans
                .iter()
                .any(|want| names.iter().any(|have| san::equals(have, want)));
            if !expected.sans.is_empty() && !expected_found {
                let list = expected.sans.join(", ");
                return Err(san_failure(format!(
                    "verify SAN list, expected SANs: [{list}], certificate SANs: [{}]",
                    san::list(names)
                )));
            }
            let accepted = match sni {
                Some(name) if expected.sans.is_empty() => names.iter().any(|have| san::is_dns(have, name)),
                _ => self.sans.is_empty() || self.sans.iter().any(|m| names.iter().any(|n| m.matches(n))),
            };
            if !accepted {
                return Err(san_failure(format!(
                    "SAN matcher, certificate SANs are [{}]",
                    san::list(names)
                )));
            }
            matched = true;
        }
        if !self.hashes.is_empty() || !self.spkis.is_empty() {
            if !self.is_pinned(leaf) {
                return Err(VerifyFailure::new(
                    FailureKind::Hash,
                    "verify cert failed: cert hash and spki",
                    CertificateError::ApplicationVerificationFailure,
                ));
            }
            matched = true;
        }
        Ok(matched)
    }

    fn is_pinned(&self, leaf: &CertificateDer<'_>) -> bool {
        let hash = digest::digest(&digest::SHA256, leaf);
        if self.hashes.iter().any(|h| h == hash.as_ref()) {
            return true;
        }
        if self.spkis.is_empty() {
            return false;
        }
        let Ok((_, cert)) = X509Certificate::from_der(leaf) else {
            return false;
        };
        let hash = digest::digest(&digest::SHA256, cert.public_key().raw);
        self.spkis.iter().any(|h| h == hash.as_ref())
    }
}

fn san_failure(text: String) -> VerifyFailure {
    VerifyFailure::new(
        FailureKind::San,
        format!("verify cert failed: {text}"),
        CertificateError::ApplicationVerificationFailure,
    )
}

fn sha256_of_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}
