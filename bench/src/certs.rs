//! One self-signed ECDSA P-256 certificate for every proxy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// Files with the same certificate and key in the forms the proxies want.
pub struct Certs {
    /// Certificate chain, PEM.
    pub chain: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Both in one file, as HAProxy reads them.
    pub both: PathBuf,
}

/// Writes the files into `dir`.
pub fn write(dir: &Path) -> Result<Certs> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let names = vec!["bench.example".to_string(), "localhost".to_string()];
    let chain = CertificateParams::new(names)?.self_signed(&key)?.pem();
    let key = key.serialize_pem();
    let certs = Certs {
        chain: dir.join("chain.pem"),
        key: dir.join("key.pem"),
        both: dir.join("both.pem"),
    };
    fs::write(&certs.both, format!("{chain}{key}"))?;
    fs::write(&certs.chain, chain)?;
    fs::write(&certs.key, key)?;
    Ok(certs)
}
