//! Which of several certificates a client is shown, by the name it asks for and the signatures it can check.

use std::{collections::HashMap, sync::Arc};

use rustls::{SignatureAlgorithm, SignatureScheme, sign::CertifiedKey};

use super::certificate::Identity;

/// Selects among the certificates of one context.
#[derive(Debug)]
pub(super) struct Selector {
    keys: Vec<Arc<CertifiedKey>>,
    /// Certificates by name, in the order of the configuration; `.example.com` for `*.example.com`.
    by_name: HashMap<String, Vec<usize>>,
    full_scan: bool,
}

impl Selector {
    /// `full_scan` is `full_scan_certs_on_sni_mismatch`.
    pub fn new(identities: &[Arc<Identity>], full_scan: bool) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, identity) in identities.iter().enumerate() {
            for name in &identity.names {
                let name = name.strip_prefix('*').filter(|n| n.starts_with('.')).unwrap_or(name);
                by_name.entry(name.to_owned()).or_default().push(index);
            }
        }
        Self {
            keys: identities.iter().map(|i| i.key.clone()).collect(),
            by_name,
            full_scan,
        }
    }

    /// The index of the certificate for a client: by its exact name, then by wildcard, then (without a name, or with
    /// `full_scan`) the first it can use, and else the first of all.
    pub fn select(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        if let Some(sni) = sni {
            let sni = sni.to_ascii_lowercase();
            let wildcard = sni.find('.').map_or("", |dot| &sni[dot..]);
            let named = |name: &str| self.best(self.by_name.get(name)?.iter().copied(), schemes);
            if let Some(found) = named(&sni).or_else(|| named(wildcard)) {
                return found;
            }
            if !self.full_scan {
                return 0;
            }
        }
        self.best(0..self.keys.len(), schemes).unwrap_or(0)
    }

    /// The first ECDSA certificate that the client can check, or else the first other one.
    fn best(&self, candidates: impl Iterator<Item = usize>, schemes: &[SignatureScheme]) -> Option<usize> {
        let mut other = None;
        for index in candidates {
            let key = &self.keys[index].key;
            if key.choose_scheme(schemes).is_none() {
                continue;
            }
            if key.algorithm() == SignatureAlgorithm::ECDSA {
                return Some(index);
            }
            other = other.or(Some(index));
        }
        other
    }
}
