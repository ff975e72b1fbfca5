//! `TlsCertificate` -> a certificate chain with its key.

use std::sync::Arc;

use rustls::{
    SignatureAlgorithm, SignatureScheme,
    crypto::aws_lc_rs,
    sign::{CertifiedKey, Signer, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use xds_protos::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{PrivateKeyProvider, TlsCertificate as Proto, TlsParameters},
};

use super::{cert_info, private_key};
use crate::{
    config::{BuildCx, ConfigResult, read_data_source},
    http::stream_info::Cert,
};

/// A certificate that can be shown to peers.
#[derive(Debug)]
pub(super) struct Identity {
    /// Chain, key and OCSP response.
    pub key: Arc<CertifiedKey>,
    /// As logs show it.
    pub info: Cert,
    /// Names a client may ask for: DNS SANs, or the common name of a certificate without SANs. Lower case.
    pub names: Vec<String>,
    /// File name of the chain, or `<inline>`: shown by `/certs`.
    pub path: String,
    /// `tls_params`: replace those of the context, on servers.
    pub params: Option<TlsParameters>,
}

impl Identity {
    /// Reads chain and key, and checks that they belong together.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                certificate_chain, private_key, private_key_provider, watched_directory, ocsp_staple, pkcs12, password,
                tls_params
            }
            ignored { signed_certificate_timestamp: "not implemented in Envoy either" }
        });
        // A secret's files are watched by whoever subscribed to it.
        let _ = watched_directory;
        if let Some(PrivateKeyProvider {
            provider_name,
            fallback: false,
            config_type: _,
        }) = private_key_provider
        {
            return Err(cx.error_at(
                "private_key_provider",
                format!("Failed to load private key provider: {provider_name}"),
            ));
        }
        let bundle_path = path_of(pkcs12.as_ref());
        let path = match pkcs12 {
            Some(_) => bundle_path.clone(),
            None => path_of(certificate_chain.as_ref()),
        };
        let key_path = path_of(private_key.as_ref());
        let password = cx.opt("password", password, read_data_source)?.unwrap_or_default();
        let bundle = cx.opt("pkcs12", pkcs12, read_data_source)?;
        if bundle.is_some() {
            for (other, name) in [(&private_key, "private_key"), (&certificate_chain, "certificate_chain")] {
                if other.is_some() {
                    return Err(cx.error(format!("Certificate configuration can't have both pkcs12 and {name}")));
                }
            }
        }
        if matches!(
            ocsp_staple.as_ref().map(|s| &s.specifier),
            Some(Some(Specifier::InlineString(_)))
        ) {
            return Err(cx.error_at("ocsp_staple", "OCSP staple cannot be provided via inline_string"));
        }
        let ocsp = cx
            .opt("ocsp_staple", ocsp_staple, read_data_source)?
            .filter(|o| !o.is_empty());
        let (chain, key) = match bundle {
            Some(bundle) => {
                let password = String::from_utf8_lossy(&password);
                let bundle = private_key::read_bundle(&bundle, &password)
                    .map_err(|e| cx.error(format!("Failed to load pkcs12 from {bundle_path}, Cause: {e}")))?;
                (bundle.chain, bundle.key)
            }
            None => pair(certificate_chain, private_key, &password, cx)?,
        };
        let key = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|e| cx.error(format!("Failed to load private key from {key_path}, Cause: {e}")))?;
        let names =
            names(&chain[0]).ok_or_else(|| cx.error(format!("Failed to load certificate chain from {path}")))?;
        let key = CertifiedKey {
            cert: chain.clone(),
            key,
            ocsp,
        };
        if key.keys_match().is_err() {
            return Err(cx.error(format!(
                "Failed to load private key from {key_path}, Cause: error:0b000074:X.509 certificate \
                 routines:OPENSSL_internal:KEY_VALUES_MISMATCH"
            )));
        }
        Ok(Self {
            key: Arc::new(key),
            info: cert_info::lazy(chain),
            names,
            path,
            params: tls_params,
        })
    }

    /// The same certificate, signing only with these algorithms. Empty: with all its key can.
    pub fn key_for(&self, schemes: &Arc<[SignatureScheme]>) -> Arc<CertifiedKey> {
        if schemes.is_empty() {
            return self.key.clone();
        }
        Arc::new(CertifiedKey {
            cert: self.key.cert.clone(),
            key: Arc::new(Restricted {
                key: self.key.key.clone(),
                schemes: schemes.clone(),
            }),
            ocsp: self.key.ocsp.clone(),
        })
    }
}

/// A chain and its key in files of their own.
fn pair(
    chain: Option<DataSource>,
    key: Option<DataSource>,
    password: &[u8],
    cx: &mut BuildCx<'_>,
) -> ConfigResult<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (path, key_path) = (path_of(chain.as_ref()), path_of(key.as_ref()));
    let chain = cx
        .opt("certificate_chain", chain, read_data_source)?
        .unwrap_or_default();
    if chain.is_empty() {
        return Err(cx.error(format!(
            "Failed to load incomplete certificate from {path}: certificate chain not set"
        )));
    }
    let key = cx.opt("private_key", key, read_data_source)?.unwrap_or_default();
    if key.is_empty() {
        return Err(cx.error(format!("Failed to load incomplete private key from path: {key_path}")));
    }
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|c| !c.is_empty())
        .ok_or_else(|| cx.error(format!("Failed to load certificate chain from {path}")))?;
    let key = private_key::read(&key, password)
        .map_err(|e| cx.error(format!("Failed to load private key from {key_path}, Cause: {e}")))?;
    Ok((chain, key))
}

/// Where a data source comes from, for errors and `/certs`.
pub(super) fn path_of(source: Option<&DataSource>) -> String {
    match source.map(|s| &s.specifier) {
        Some(Some(Specifier::Filename(path))) => path.clone(),
        Some(Some(_)) => "<inline>".into(),
        _ => String::new(),
    }
}

/// The names a certificate answers to; none if it cannot be read.
fn names(leaf: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (_, cert) = X509Certificate::from_der(leaf).ok()?;
    let sans = cert_info::general_names(&cert);
    let names = if sans.is_empty() {
        let names = cert.subject().iter_common_name();
        names
            .filter_map(|n| n.as_str().ok())
            .map(str::to_ascii_lowercase)
            .collect()
    } else {
        sans.iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase()),
                _ => None,
            })
            .collect()
    };
    Some(names)
}

/// A key that signs only with the algorithms of `signature_algorithms`.
#[derive(Debug)]
struct Restricted {
    key: Arc<dyn SigningKey>,
    schemes: Arc<[SignatureScheme]>,
}

impl SigningKey for Restricted {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let both: Vec<_> = offered.iter().filter(|s| self.schemes.contains(s)).copied().collect();
        self.key.choose_scheme(&both)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}
