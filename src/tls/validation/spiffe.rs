//! `envoy.tls.cert_validator.spiffe`: the trust domain of a certificate's first URI picks the CAs it is verified with.

mod bundles;

use std::collections::HashMap;

use aws_lc_rs::digest;
use rustls::{CertificateError, DistinguishedName, crypto::WebPkiSupportedAlgorithms};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use xds_protos::{
    envoy::{
        config::core::v3::data_source::Specifier,
        extensions::transport_sockets::tls::v3::{
            SpiffeCertValidatorConfig as Proto, spiffe_cert_validator_config::TrustDomain,
        },
    },
    google::protobuf::Any,
};

use super::{
    VerifyFailure,
    chain::{Purpose, TrustStore},
};
use crate::{
    config::{BuildCx, ConfigResult, read_data_source, unpack},
    tls::cert_info,
};

/// The bundles by trust domain.
#[derive(Debug)]
pub(super) struct TrustDomains(HashMap<String, TrustStore>);

impl TrustDomains {
    /// Reads all bundles, which become part of `hash`.
    pub fn build(
        any: &Any,
        allow_expired: bool,
        algorithms: WebPkiSupportedAlgorithms,
        hash: &mut digest::Context,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let proto: Proto = unpack(any, cx)?;
        coverage!(cx, proto => Proto {
            supported { trust_domains, trust_bundles }
        });
        if let Some(source) = trust_bundles {
            if matches!(source.specifier, Some(Specifier::Filename(_))) {
                cx.ignored("trust_bundles", "a changed file is read with the next configuration");
            }
            return cx.field("trust_bundles", |cx| {
                let json = read_data_source(source, cx)?;
                hash.update(&json);
                let mut stores = bundles::read(&json, algorithms).map_err(|e| cx.error(e.to_string()))?;
                stores
                    .values_mut()
                    .for_each(|store| store.allow_expired = allow_expired);
                Ok(Self(stores))
            });
        }
        let mut stores = HashMap::new();
        cx.each("trust_domains", trust_domains, |domain, cx| {
            coverage!(cx, domain => TrustDomain {
                supported { name, trust_bundle }
                rejected { workload_trust_domain: "a trust domain per workload" }
            });
            let pem = cx.required("trust_bundle", trust_bundle, read_data_source)?;
            hash.update(&pem);
            let mut store = TrustStore::from_pem(&pem, algorithms)
                .map_err(|_| cx.error(format!("Failed to load trusted CA certificate for {name}")))?;
            store.allow_expired = allow_expired;
            if stores.insert(name.clone(), store).is_some() {
                return Err(cx.error(format!(
                    "Multiple trust bundles are given for one trust domain for {name}"
                )));
            }
            Ok(())
        })?;
        if stores.is_empty() {
            return Err(cx.error_at("trust_domains", "value must contain at least 1 item(s)"));
        }
        Ok(Self(stores))
    }

    /// Subjects of all bundles.
    pub fn subjects(&self) -> Vec<DistinguishedName> {
        self.0.values().flat_map(TrustStore::subjects).collect()
    }

    /// The certificates of all bundles.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.values().flat_map(TrustStore::certificates)
    }

    /// Verifies an SVID.
    pub fn verify(
        &self,
        purpose: Purpose,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyFailure> {
        let refused = |text: &str| VerifyFailure::chain(text, CertificateError::ApplicationVerificationFailure);
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| refused("cert precheck"))?;
        let signs = match cert.key_usage() {
            Ok(usage) => usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign()),
            Err(_) => true,
        };
        if cert.is_ca() || signs {
            return Err(refused("cert precheck"));
        }
        let store = trust_domain(&cert)
            .and_then(|domain| self.0.get(domain))
            .ok_or_else(|| refused("no trust bundle store"))?;
        store.verify(purpose, leaf, intermediates, now)
    }
}

/// The trust domain of the first URI: `spiffe://<domain>/...`.
fn trust_domain<'a>(cert: &'a X509Certificate<'_>) -> Option<&'a str> {
    let uri = cert_info::general_names(cert).iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })?;
    let (domain, _) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    Some(domain).filter(|d| !d.is_empty())
}
