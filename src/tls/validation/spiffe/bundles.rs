//! `trust_bundles`: the bundles of several trust domains in the JSON form of SPIFFE.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::TrustStore;

/// What is wrong with bundles, in Envoy's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BundleError {
    #[error("Invalid JSON found in SPIFFE bundle")]
    NoJson,
    #[error("No trust domains found in SPIFFE bundle")]
    NoDomains,
    #[error("No keys found in SPIFFE bundle for domain '{0}'")]
    NoKeys(String),
    #[error("missing or invalid 'use' field found in cert for domain '{0}'")]
    Use(String),
    #[error("missing or empty 'x5c' field found in keys for domain: '{0}'")]
    NoCertificates(String),
    #[error("Failed to create x509 object while loading certs in domain '{0}'")]
    Encoding(String),
    #[error("Invalid x509 object in certs for domain '{0}'")]
    Certificate(String),
}

/// Reads all bundles.
pub(super) fn read(
    json: &[u8],
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<HashMap<String, TrustStore>, BundleError> {
    let bundles: Value = serde_json::from_slice(json).map_err(|_| BundleError::NoJson)?;
    let domains = bundles.get("trust_domains").and_then(Value::as_object);
    let domains = domains.filter(|d| !d.is_empty()).ok_or(BundleError::NoDomains)?;
    let mut stores = HashMap::new();
    for (name, domain) in domains {
        let mut certificates = Vec::new();
        let keys = list(domain, "keys").ok_or_else(|| BundleError::NoKeys(name.clone()))?;
        for key in keys {
            // Keys of JWTs are not for certificates, and Envoy takes none in their company.
            if key.get("use").and_then(Value::as_str) != Some("x509-svid") {
                return Err(BundleError::Use(name.clone()));
            }
            let chain = list(key, "x5c").ok_or_else(|| BundleError::NoCertificates(name.clone()))?;
            for text in chain {
                let der = text.as_str().and_then(|text| STANDARD.decode(text).ok());
                let der = der.filter(|der| !der.is_empty());
                let der = der.ok_or_else(|| BundleError::Encoding(name.clone()))?;
                certificates.push(CertificateDer::from(der));
            }
        }
        let store = TrustStore::new(certificates, algorithms).map_err(|_| BundleError::Certificate(name.clone()))?;
        stores.insert(name.clone(), store);
    }
    Ok(stores)
}

/// A list that is not empty.
fn list<'a>(value: &'a Value, name: &str) -> Option<&'a Vec<Value>> {
    value.get(name)?.as_array().filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        read(json.as_bytes(), algorithms).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(error("nonsense"), "Invalid JSON found in SPIFFE bundle");
        assert_eq!(error("{}"), "No trust domains found in SPIFFE bundle");
        let domain = |keys: &str| format!(r#"{{"trust_domains": {{"a.test": {{"keys": {keys}}}}}}}"#);
        assert_eq!(
            error(&domain("[]")),
            "No keys found in SPIFFE bundle for domain 'a.test'"
        );
        let key = |use_: &str, x5c: &str| domain(&format!(r#"[{{"use": "{use_}", "x5c": {x5c}}}]"#));
        assert!(error(&key("jwt-svid", "[]")).starts_with("missing or invalid 'use'"));
        assert!(error(&key("x509-svid", "[]")).starts_with("missing or empty 'x5c'"));
        assert!(error(&key("x509-svid", r#"["*"]"#)).starts_with("Failed to create x509 object"));
        assert!(error(&key("x509-svid", r#"["AAAA"]"#)).starts_with("Invalid x509 object"));
    }
}
