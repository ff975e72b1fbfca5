//! Private keys, in the clear or protected by a password, and PKCS #12 bundles of a key with its certificates.

use p12_keystore::Pkcs12Archive;
use pkcs8::{EncryptedPrivateKeyInfoRef, der::pem::decode_vec};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

/// Why a key could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    /// Not PEM, or without a key.
    #[error("{0}")]
    Malformed(String),
    /// It is encrypted, and the password does not open it (or there is none).
    #[error("the password is missing or wrong, or the encryption is not supported")]
    Locked,
    /// A bundle without a key, or without the key's certificate.
    #[error("the bundle has no key with a certificate")]
    Incomplete,
}

/// Reads a key in PEM. One in an `ENCRYPTED PRIVATE KEY` (PKCS #8 with PBES2) is opened with the password.
pub(super) fn read(pem: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>, KeyError> {
    const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let encrypted = memchr::memmem::find(pem, ENCRYPTED);
    let Some(begin) = encrypted else {
        return PrivateKeyDer::from_pem_slice(pem).map_err(|e| KeyError::Malformed(e.to_string()));
    };
    let (_, der) = decode_vec(&pem[begin..]).map_err(|e| KeyError::Malformed(e.to_string()))?;
    let info = EncryptedPrivateKeyInfoRef::try_from(&der[..]).map_err(|e| KeyError::Malformed(e.to_string()))?;
    let key = info.decrypt(password).map_err(|_| KeyError::Locked)?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// What a PKCS #12 bundle has.
pub(super) struct Bundle {
    /// The key's certificate, then the others.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Opens a bundle (DER).
pub(super) fn read_bundle(der: &[u8], password: &str) -> Result<Bundle, KeyError> {
    let archive = Pkcs12Archive::from_pkcs12(der, password).map_err(|_| KeyError::Locked)?;
    let key = archive.keys.first().ok_or(KeyError::Incomplete)?;
    // The certificate that names the key, or else the first.
    let of_key = |cert: &p12_keystore::CertificateBag| {
        key.local_key_id.is_some()
            && cert.local_key_id.as_ref().map(AsRef::as_ref) == key.local_key_id.as_ref().map(|id| id.as_ref())
    };
    let leaf = archive.certs.iter().position(of_key).unwrap_or(0);
    let der = |cert: &p12_keystore::CertificateBag| CertificateDer::from(cert.cert.as_der().to_vec());
    let first = archive.certs.get(leaf).map(der).ok_or(KeyError::Incomplete)?;
    let others = archive.certs.iter().enumerate().filter(|(at, _)| *at != leaf);
    Ok(Bundle {
        chain: std::iter::once(first)
            .chain(others.map(|(_, cert)| der(cert)))
            .collect(),
        key: PrivatePkcs8KeyDer::from(key.key.as_der().to_vec()).into(),
    })
}

#[cfg(test)]
mod tests;
