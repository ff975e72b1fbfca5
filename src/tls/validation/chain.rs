//! `trusted_ca` and `crl`: a certificate's chain up to a trusted certificate.

use std::io;

use rustls::{CertificateError, DistinguishedName, crypto::WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime, pem::PemObject};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::VerifyFailure;

/// What a certificate is verified for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tls) enum Purpose {
    /// A client's, seen by a server.
    Client,
    /// A server's, seen by a client.
    Server,
}

/// Trusted certificates and what revokes others.
#[derive(Debug)]
pub(super) struct TrustStore {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// `allow_expired_certificate`
    pub allow_expired: bool,
    /// `only_verify_leaf_cert_crl`
    pub leaf_crl_only: bool,
    /// `max_verify_depth`: counts the trusted certificate, not the leaf.
    pub max_depth: Option<u32>,
}

#[derive(Debug)]
struct Root {
    der: CertificateDer<'static>,
    valid: (i64, i64),
}

impl TrustStore {
    /// Reads a bundle of certificates; CRLs in it count, too.
    pub fn from_pem(pem: &[u8], algorithms: WebPkiSupportedAlgorithms) -> Result<Self, io::Error> {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let mut store = Self::new(certificates.map_err(invalid)?, algorithms)?;
        store.add_crls(pem).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })?;
        Ok(store)
    }

    /// Trusts these certificates, of which there has to be one.
    pub fn new(
        certificates: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, io::Error> {
        let mut store = Self {
            roots: Vec::new(),
            anchors: Vec::new(),
            crls: Vec::new(),
            algorithms,
            allow_expired: false,
            leaf_crl_only: false,
            max_depth: None,
        };
        for der in certificates {
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| invalid(e.to_string()))?;
            let valid = validity(&parsed);
            // A certificate that cannot be an anchor is trusted as itself only.
            if let Ok(anchor) = anchor_from_trusted_cert(&der) {
                store.anchors.push(anchor.to_owned());
                store.roots.push(Root { der, valid });
            } else {
                return Err(invalid("not a certificate that can be trusted"));
            }
        }
        if store.roots.is_empty() {
            return Err(invalid("no certificate"));
        }
        Ok(store)
    }

    /// Adds the CRLs of a PEM bundle.
    pub fn add_crls(&mut self, pem: &[u8]) -> Result<(), io::Error> {
        let before = self.crls.len();
        for der in CertificateRevocationListDer::pem_slice_iter(pem) {
            let der = der.map_err(invalid)?;
            let crl = OwnedCertRevocationList::from_der(&der).map_err(|e| invalid(e.to_string()))?;
            self.crls.push(crl.into());
        }
        if self.crls.len() == before {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no CRL"));
        }
        Ok(())
    }

    /// Subjects of the trusted certificates.
    pub fn subjects(&self) -> Vec<DistinguishedName> {
        let mut subjects: Vec<DistinguishedName> = Vec::new();
        for anchor in &self.anchors {
            let subject = DistinguishedName::in_sequence(&anchor.subject);
            if !subjects.iter().any(|s| s.as_ref() == subject.as_ref()) {
                subjects.push(subject);
            }
        }
        subjects
    }

    /// The trusted certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|r| &r.der)
    }

    /// Verifies a chain.
    pub fn verify(
        &self,
        purpose: Purpose,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyFailure> {
        if self.roots.iter().any(|root| root.der == *leaf) {
            return self.verify_trusted_leaf(purpose, leaf, now);
        }
        let cert = EndEntityCert::try_from(leaf).map_err(|e| failure(&e))?;
        match self.path(purpose, &cert, intermediates, now, now) {
            Ok(()) => Ok(()),
            Err(e) if self.allow_expired && is_about_time(&e) => self
                .verify_expired(purpose, &cert, leaf, intermediates, now)
                .map_err(|e| failure(&e)),
            Err(Error::UnknownIssuer | Error::CaUsedAsEndEntity) if cert.issuer() == cert.subject() => Err(
                VerifyFailure::chain(describe(0, "self signed certificate"), CertificateError::UnknownIssuer),
            ),
            Err(e) => Err(failure(&e)),
        }
    }

    /// One attempt: `at` is when certificates must be valid, `now` when trusted ones must.
    fn path(
        &self,
        purpose: Purpose,
        cert: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        at: UnixTime,
        now: UnixTime,
    ) -> Result<(), Error> {
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let revocation = match RevocationOptionsBuilder::new(&crls) {
            Ok(builder) => {
                let depth = match self.leaf_crl_only {
                    true => RevocationCheckDepth::EndEntity,
                    false => RevocationCheckDepth::Chain,
                };
                let expiry = match self.allow_expired {
                    true => ExpirationPolicy::Ignore,
                    false => ExpirationPolicy::Enforce,
                };
                let builder = builder.with_depth(depth).with_status_policy(UnknownStatusPolicy::Deny);
                Some(builder.with_expiration_policy(expiry).build())
            }
            // There are no CRLs.
            Err(_) => None,
        };
        let accept = |path: &VerifiedPath<'_>| self.accept_path(path, now);
        cert.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            at,
            match purpose {
                Purpose::Client => KeyUsage::client_auth(),
                Purpose::Server => KeyUsage::server_auth(),
            },
            revocation,
            Some(&accept),
        )
        .map(|_| ())
    }

    /// What is asked of a whole path: its length, and that the trusted certificate is valid, too.
    fn accept_path(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), Error> {
        if let Some(max) = self.max_depth {
            let most = usize::try_from(max.saturating_sub(1)).unwrap_or(usize::MAX);
            if path.intermediate_certificates().count() > most {
                return Err(Error::MaximumPathDepthExceeded);
            }
        }
        if self.allow_expired {
            return Ok(());
        }
        let root = self
            .anchors
            .iter()
            .position(|a| std::ptr::eq(a, path.anchor()))
            .and_then(|at| self.roots.get(at));
        match root {
            Some(root) => check_time(root.valid, now),
            None => Ok(()),
        }
    }

    /// The leaf is itself among the trusted certificates: its own properties are what is left to check.
    fn verify_trusted_leaf(
        &self,
        purpose: Purpose,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), VerifyFailure> {
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| failure(&Error::BadDer))?;
        if !self.allow_expired {
            check_time(validity(&cert), now).map_err(|e| failure(&e))?;
        }
        let allowed = match cert.extended_key_usage() {
            Ok(Some(usage)) => {
                let usage = usage.value;
                usage.any
                    || match purpose {
                        Purpose::Client => usage.client_auth,
                        Purpose::Server => usage.server_auth,
                    }
            }
            Ok(None) => true,
            Err(_) => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(VerifyFailure::chain(
                describe(0, "unsupported certificate purpose"),
                CertificateError::InvalidPurpose,
            )),
        }
    }

    /// `allow_expired_certificate`: the chain has to be good at some moment at which one of its certificates
    /// begins or ends.
    fn verify_expired(
        &self,
        purpose: Purpose,
        cert: &EndEntityCert<'_>,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut last = Error::UnknownIssuer;
        for der in std::iter::once(leaf).chain(intermediates) {
            let Ok((_, parsed)) = X509Certificate::from_der(der) else {
                continue;
            };
            let (from, until) = validity(&parsed);
            for seconds in [until, from] {
                let at = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                match self.path(purpose, cert, intermediates, UnixTime::since_unix_epoch(at), now) {
                    Ok(()) => return Ok(()),
                    Err(e) => last = e,
                }
            }
        }
        Err(last)
    }
}

fn validity(cert: &X509Certificate<'_>) -> (i64, i64) {
    let validity = cert.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

fn check_time((from, until): (i64, i64), now: UnixTime) -> Result<(), Error> {
    let unix =
        |seconds: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if seconds > until {
        return Err(Error::CertExpired {
            time: now,
            not_after: unix(until),
        });
    }
    if seconds < from {
        return Err(Error::CertNotValidYet {
            time: now,
            not_before: unix(from),
        });
    }
    Ok(())
}

fn is_about_time(error: &Error) -> bool {
    matches!(
        error,
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } | Error::CrlExpired { .. }
    )
}

/// Envoy's description: webpki does not tell where in the chain, and nearly always it is the leaf.
fn describe(depth: usize, text: &str) -> String {
    format!("X509_verify_cert: certificate verification error at depth {depth}: {text}")
}

/// OpenSSL's words for what rustls has a value for.
pub(super) fn text(error: &CertificateError) -> Option<&'static str> {
    Some(match error {
        CertificateError::Expired => "certificate has expired",
        CertificateError::NotValidYet => "certificate is not yet valid",
        CertificateError::Revoked => "certificate revocation check against provided CRLs failed: certificate revoked",
        CertificateError::UnknownRevocationStatus => {
            "certificate revocation check against provided CRLs failed: unable to get certificate CRL"
        }
        CertificateError::ExpiredRevocationList => {
            "certificate revocation check against provided CRLs failed: CRL has expired"
        }
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::InvalidPurpose => "unsupported certificate purpose",
        CertificateError::BadSignature => "certificate signature failure",
        _ => return None,
    })
}

/// The whole description of a refusal that went through rustls as its own value.
pub(in crate::tls) fn describe_error(error: &CertificateError) -> Option<String> {
    text(error).map(|text| format!("verify cert failed: {}", describe(0, text)))
}

fn failure(error: &Error) -> VerifyFailure {
    let unknown = |text| (text, CertificateError::UnknownIssuer);
    let same = |error: CertificateError| (text(&error).unwrap_or_default(), error);
    let (text, error) = match error {
        Error::CertExpired { .. } => same(CertificateError::Expired),
        Error::CertNotValidYet { .. } => same(CertificateError::NotValidYet),
        Error::CertRevoked => same(CertificateError::Revoked),
        Error::UnknownRevocationStatus => same(CertificateError::UnknownRevocationStatus),
        Error::CrlExpired { .. } => same(CertificateError::ExpiredRevocationList),
        Error::UnknownIssuer => same(CertificateError::UnknownIssuer),
        Error::CaUsedAsEndEntity | Error::RequiredEkuNotFoundContext(_) => same(CertificateError::InvalidPurpose),
        Error::InvalidSignatureForPublicKey | Error::InvalidCrlSignatureForPublicKey => {
            same(CertificateError::BadSignature)
        }
        Error::EndEntityUsedAsCa => unknown("invalid CA certificate"),
        Error::MaximumPathDepthExceeded | Error::MaximumPathBuildCallsExceeded => unknown("certificate chain too long"),
        Error::PathLenConstraintViolated => unknown("path length constraint exceeded"),
        Error::NameConstraintViolation => unknown("permitted subtree violation"),
        _ => (
            "unspecified certificate verification error",
            CertificateError::BadEncoding,
        ),
    };
    VerifyFailure::chain(describe(0, text), error)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The system's bundle of CA certificates, where distributions keep it.
pub(super) fn system_roots() -> Option<Vec<u8>> {
    const PATHS: &[&str] = &[
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    PATHS.iter().find_map(|path| std::fs::read(path).ok())
}
