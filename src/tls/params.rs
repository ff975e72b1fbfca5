//! `TlsParameters` -> the cryptography a context uses.

use std::sync::Arc;

use rustls::{
    SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    version::{TLS12, TLS13},
};
use xds_protos::envoy::extensions::transport_sockets::tls::v3::{
    TlsParameters as Proto,
    tls_parameters::{CompliancePolicy, TlsProtocol},
};

use super::names;
use crate::config::{BuildCx, ConfigResult};

/// Which side of connections a context stands on: their defaults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// Versions, suites, curves and signature algorithms.
#[derive(Debug, Clone)]
pub(super) struct Params {
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub provider: Arc<CryptoProvider>,
    /// `signature_algorithms`; empty for all.
    pub schemes: Arc<[SignatureScheme]>,
    /// As they were configured: those of a single certificate replace some of them.
    source: Box<Proto>,
}

const DEFAULT_SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];
/// Not configurable in Envoy.
const TLS13_SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];
const DEFAULT_CURVES: &[&str] = &["X25519MLKEM768", "X25519", "P-256"];
const FIPS_SUITES: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];

impl Params {
    /// Reads the parameters; unset ones are Envoy's defaults for this side.
    pub fn build(proto: Proto, side: Side, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let source = Box::new(proto.clone());
        coverage!(cx, proto => Proto {
            supported {
                tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites, ecdh_curves,
                signature_algorithms, compliance_policies,
            }
        });
        let mut suites = suites(&cipher_suites, cx)?;
        let mut groups = groups(&ecdh_curves, cx)?;
        let mut schemes = schemes(&signature_algorithms, cx)?;
        let mut tls13 = TLS13_SUITES;
        match compliance_policies.as_slice() {
            [] => {}
            [policy] if *policy == CompliancePolicy::Fips202205 as i32 => {
                suites = FIPS_SUITES.iter().filter_map(|n| names::suite(n)).collect();
                groups = ["P-256", "P-384"].iter().filter_map(|n| names::group(n)).collect();
                schemes = names::SIGALGS
                    .iter()
                    .map(|(scheme, _)| *scheme)
                    .filter(|s| !matches!(*s, SignatureScheme::ED25519 | SignatureScheme::ECDSA_NISTP521_SHA512))
                    .collect();
                tls13 = &TLS13_SUITES[..2];
            }
            _ => return Err(cx.error_at("compliance_policies", "not supported: policies other than FIPS_202205")),
        }
        let versions = versions(tls_minimum_protocol_version, tls_maximum_protocol_version, side, cx)?;
        let has_13 = versions.contains(&&TLS13);
        let has_12 = versions.contains(&&TLS12);
        let mut all: Vec<_> = tls13
            .iter()
            .filter(|_| has_13)
            .filter_map(|n| names::suite(n))
            .collect();
        if has_12 {
            all.extend(suites);
        }
        let mut provider = CryptoProvider {
            cipher_suites: all,
            kx_groups: groups,
            ..aws_lc_rs::default_provider()
        };
        if !schemes.is_empty() {
            let all = provider.signature_verification_algorithms.mapping;
            let kept: Vec<_> = all.iter().filter(|(s, _)| schemes.contains(s)).copied().collect();
            // Contexts are few and their parameters fewer: the algorithms' table wants a static life.
            provider.signature_verification_algorithms.mapping = interned(kept);
        }
        Ok(Self {
            versions,
            provider: Arc::new(provider),
            schemes: schemes.into(),
            source,
        })
    }

    /// These parameters with what a certificate says instead (`TlsCertificate.tls_params`), for servers.
    pub fn replaced_by(&self, own: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        fn either<T: Default + PartialEq>(own: T, common: T) -> T {
            if own == T::default() { common } else { own }
        }
        let common = Proto::clone(&self.source);
        let merged = Proto {
            tls_minimum_protocol_version: either(own.tls_minimum_protocol_version, common.tls_minimum_protocol_version),
            tls_maximum_protocol_version: either(own.tls_maximum_protocol_version, common.tls_maximum_protocol_version),
            cipher_suites: either(own.cipher_suites, common.cipher_suites),
            ecdh_curves: either(own.ecdh_curves, common.ecdh_curves),
            signature_algorithms: either(own.signature_algorithms, common.signature_algorithms),
            compliance_policies: either(own.compliance_policies, common.compliance_policies),
        };
        Self::build(merged, Side::Server, cx)
    }
}

type Mapping = (
    SignatureScheme,
    &'static [&'static dyn rustls_pki_types::SignatureVerificationAlgorithm],
);

/// A table that lives as long as the process; equal ones are kept once, so updates do not add up.
fn interned(kept: Vec<Mapping>) -> &'static [Mapping] {
    static TABLES: std::sync::Mutex<Vec<&'static [Mapping]>> = std::sync::Mutex::new(Vec::new());
    let mut tables = TABLES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let same = |table: &[Mapping]| table.iter().map(|m| m.0).eq(kept.iter().map(|m| m.0));
    if let Some(table) = tables.iter().find(|t| same(t)) {
        return table;
    }
    let table: &'static [Mapping] = Vec::leak(kept);
    tables.push(table);
    table
}

fn versions(min: i32, max: i32, side: Side, cx: &BuildCx<'_>) -> ConfigResult<Vec<&'static SupportedProtocolVersion>> {
    let read = |field, value| match TlsProtocol::try_from(value) {
        Ok(version) => Ok(version),
        Err(_) => Err(cx.error_at(field, "value must be one of the defined enum values")),
    };
    let min = match read("tls_minimum_protocol_version", min)? {
        TlsProtocol::TlsAuto => 12,
        // What is older than 1.2 is never offered: the range begins at 1.2, which only makes it stricter.
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 | TlsProtocol::TlSv12 => 12,
        TlsProtocol::TlSv13 => 13,
    };
    let max = match read("tls_maximum_protocol_version", max)? {
        TlsProtocol::TlsAuto if side == Side::Server || min == 13 => 13,
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => 12,
        TlsProtocol::TlSv13 => 13,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            return Err(cx.error_at("tls_maximum_protocol_version", "not supported: TLS 1.0 and 1.1"));
        }
    };
    let all: Vec<_> = [(12, &TLS12), (13, &TLS13)]
        .into_iter()
        .filter(|(v, _)| (min..=max).contains(v))
        .map(|(_, v)| v)
        .collect();
    if all.is_empty() {
        return Err(cx.error("the minimum TLS version is above the maximum"));
    }
    Ok(all)
}

/// Cipher lists as BoringSSL reads them: names, `[A|B]` groups of equal preference, several in one entry by colons.
fn suites(lists: &[String], cx: &mut BuildCx<'_>) -> ConfigResult<Vec<SupportedCipherSuite>> {
    if lists.is_empty() {
        return Ok(DEFAULT_SUITES.iter().filter_map(|n| names::suite(n)).collect());
    }
    let mut found: Vec<SupportedCipherSuite> = Vec::new();
    let mut missing = false;
    let known = |name: &str| names::OTHER_CIPHERS.contains(&name);
    for name in lists
        .iter()
        .flat_map(|list| list.split(['[', ']', '|', ':', ',', ' ']))
        .filter(|name| !name.is_empty())
    {
        match names::suite(name) {
            // Those of TLS 1.3 are not configured by this list.
            Some(suite) if suite.tls13().is_some() => {}
            Some(suite) if found.contains(&suite) => {}
            Some(suite) => found.push(suite),
            None if known(name) => missing = true,
            None => {
                return Err(cx.error_at(
                    "cipher_suites",
                    format!(
                        "Failed to initialize cipher suites {}. The following ciphers were rejected when tried individually: {name}",
                        lists.join(":")
                    ),
                ));
            }
        }
    }
    if found.is_empty() {
        return Err(cx.error_at(
            "cipher_suites",
            "not supported: none of these cipher suites is available; ECDHE with AES-GCM or ChaCha20-Poly1305 is",
        ));
    }
    if missing {
        cx.ignored(
            "cipher_suites",
            "suites without forward secrecy or AEAD are left out of the list",
        );
    }
    Ok(found)
}

fn groups(list: &[String], cx: &mut BuildCx<'_>) -> ConfigResult<Vec<&'static dyn SupportedKxGroup>> {
    let mut found: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    if list.is_empty() {
        found.extend(DEFAULT_CURVES.iter().filter_map(|n| names::group(n)));
        return Ok(found);
    }
    for name in list.iter().flat_map(|l| l.split([':', ','])).filter(|n| !n.is_empty()) {
        match names::group(name) {
            Some(group) => found.push(group),
            None if names::OTHER_CURVES.contains(&name) => {
                cx.ignored("ecdh_curves", "curves that are not available are left out of the list");
            }
            None => {
                return Err(cx.error_at(
                    "ecdh_curves",
                    format!("Failed to initialize ECDH curves {}", list.join(":")),
                ));
            }
        }
    }
    if found.is_empty() {
        return Err(cx.error_at("ecdh_curves", "not supported: none of these curves is available"));
    }
    Ok(found)
}

fn schemes(list: &[String], cx: &mut BuildCx<'_>) -> ConfigResult<Vec<SignatureScheme>> {
    let mut found = Vec::new();
    for name in list.iter().flat_map(|l| l.split([':', ','])).filter(|n| !n.is_empty()) {
        match names::scheme(name) {
            Some(scheme) => found.push(scheme),
            None if names::OTHER_SIGALGS.contains(&name) => {
                cx.ignored("signature_algorithms", "SHA-1 is left out of the list");
            }
            None => {
                return Err(cx.error_at(
                    "signature_algorithms",
                    format!("Failed to initialize TLS signature algorithms {}", list.join(":")),
                ));
            }
        }
    }
    if found.is_empty() && !list.is_empty() {
        return Err(cx.error_at(
            "signature_algorithms",
            "not supported: none of these algorithms is available",
        ));
    }
    Ok(found)
}
