//! `CommonTlsContext`: what both sides of TLS are configured with, and what secrets they are built from.

use std::sync::{Arc, Weak};

use rustls::crypto::WebPkiSupportedAlgorithms;
use xds_protos::{
    envoy::extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext as Proto, TlsCertificate,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    },
    prost::Message,
};

use super::{
    certificate::Identity,
    key_log::KeyLogFile,
    params::{Params, Side},
    secrets::{Candidate, CertificateSecret, SecretKind, SecretSlot, SecretUser, SecretValue, Secrets},
    validation::Validator,
};
use crate::config::{BuildCx, ConfigResult};

/// The common part of a context.
#[derive(Debug)]
pub(super) struct Common {
    pub params: Params,
    pub certificates: Vec<CertificateSource>,
    pub validation: ValidationSource,
    pub alpn: Vec<Arc<str>>,
    pub key_log: Option<Arc<KeyLogFile>>,
    auto_sni_san: bool,
}

/// Where a certificate comes from.
#[derive(Debug)]
pub(super) enum CertificateSource {
    Static(Arc<Identity>),
    Secret(Arc<SecretSlot>),
}

/// Where the validation context comes from.
#[derive(Debug)]
pub(super) enum ValidationSource {
    None,
    Static(Arc<Validator>),
    Secret(Arc<SecretSlot>),
    /// A default that the secret's fields are merged into.
    Combined(Box<CertificateValidationContext>, Arc<SecretSlot>),
}

/// Secrets as they are now.
pub(super) struct Material {
    pub identities: Vec<Arc<Identity>>,
    pub validator: Option<Arc<Validator>>,
}

impl Common {
    /// Reads the message; secrets are subscribed.
    pub fn build(proto: Proto, side: Side, auto_sni_san: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols, key_log,
                validation_context_type,
            }
            rejected {
                tls_certificate_provider_instance: "certificate provider plugins",
                tls_certificate_certificate_provider: "certificate provider plugins",
                tls_certificate_certificate_provider_instance: "certificate provider plugins",
                custom_tls_certificate_selector: "certificate selectors",
                custom_handshaker: "custom handshakers",
            }
        });
        let params = cx.field("tls_params", |cx| {
            Params::build(tls_params.unwrap_or_default(), side, cx)
        })?;
        let algorithms = params.provider.signature_verification_algorithms;
        let mut certificates = cx.each(
            "tls_certificates",
            // As in Envoy: an entry that says nothing is no certificate.
            tls_certificates.into_iter().filter(|c| *c != TlsCertificate::default()),
            |proto, cx| Ok(CertificateSource::Static(Arc::new(Identity::build(proto, cx)?))),
        )?;
        // As in Envoy: certificates that are given are not mixed with secrets.
        if certificates.is_empty() {
            certificates = cx.each(
                "tls_certificate_sds_secret_configs",
                tls_certificate_sds_secret_configs,
                |config, cx| Secrets::subscribe(config, SecretKind::Certificate, cx).map(CertificateSource::Secret),
            )?;
        }
        let validation = match validation_context_type {
            None => ValidationSource::None,
            Some(ValidationContextType::ValidationContext(proto)) => {
                let validator = cx.field("validation_context", |cx| {
                    Validator::build(proto, auto_sni_san, algorithms, cx)
                })?;
                ValidationSource::Static(Arc::new(validator))
            }
            Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
                let slot = cx.field("validation_context_sds_secret_config", |cx| {
                    Secrets::subscribe(config, SecretKind::Validation, cx)
                })?;
                ValidationSource::Secret(slot)
            }
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                cx.field("combined_validation_context", |cx| combined_source(combined, cx))?
            }
            Some(
                ValidationContextType::ValidationContextCertificateProvider(_)
                | ValidationContextType::ValidationContextCertificateProviderInstance(_),
            ) => return Err(cx.error("not supported: certificate provider plugins")),
        };
        if auto_sni_san && matches!(validation, ValidationSource::None) {
            return Err(cx.error("'auto_sni_san_validation' was configured without configuring a trusted CA"));
        }
        Ok(Self {
            params,
            certificates,
            validation,
            alpn: alpn_protocols.into_iter().map(Into::into).collect(),
            key_log: cx.opt("key_log", key_log, KeyLogFile::build)?.map(Arc::new),
            auto_sni_san,
        })
    }

    /// Tells `user` when a secret changes.
    pub fn register(&self, user: &Weak<dyn SecretUser>) {
        for source in &self.certificates {
            if let CertificateSource::Secret(slot) = source {
                slot.register(user.clone());
            }
        }
        match &self.validation {
            ValidationSource::Secret(slot) | ValidationSource::Combined(_, slot) => slot.register(user.clone()),
            ValidationSource::None | ValidationSource::Static(_) => {}
        }
    }

    /// All that a context needs; none while a secret is missing.
    pub fn material(&self, candidate: Option<&Candidate<'_>>, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Material>> {
        let mut identities = Vec::with_capacity(self.certificates.len());
        for source in &self.certificates {
            match source {
                CertificateSource::Static(identity) => identities.push(identity.clone()),
                CertificateSource::Secret(slot) => match slot.value(candidate) {
                    Some(SecretValue::Certificate(CertificateSecret(identity))) => identities.push(identity),
                    _ => return Ok(None),
                },
            }
        }
        let algorithms = self.params.provider.signature_verification_algorithms;
        let validator = match &self.validation {
            ValidationSource::None => None,
            ValidationSource::Static(validator) => Some(validator.clone()),
            ValidationSource::Secret(slot) => match slot.value(candidate) {
                Some(SecretValue::Validation(proto)) => {
                    Some(self.validator(CertificateValidationContext::clone(&proto), algorithms, cx)?)
                }
                _ => return Ok(None),
            },
            ValidationSource::Combined(default, slot) => match slot.value(candidate) {
                Some(SecretValue::Validation(proto)) => {
                    let mut merged = CertificateValidationContext::clone(default);
                    // Protobuf's own merge: lists are added to, set fields replaced.
                    merged
                        .merge(proto.encode_to_vec().as_slice())
                        .map_err(|e| cx.error(e.to_string()))?;
                    Some(self.validator(merged, algorithms, cx)?)
                }
                _ => return Ok(None),
            },
        };
        Ok(Some(Material { identities, validator }))
    }

    fn validator(
        &self,
        proto: CertificateValidationContext,
        algorithms: WebPkiSupportedAlgorithms,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Arc<Validator>> {
        Validator::build(proto, self.auto_sni_san, algorithms, cx).map(Arc::new)
    }
}

fn combined_source(
    proto: CombinedCertificateValidationContext,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<ValidationSource> {
    coverage!(cx, proto => CombinedCertificateValidationContext {
        supported { default_validation_context, validation_context_sds_secret_config }
        rejected {
            validation_context_certificate_provider: "certificate provider plugins",
            validation_context_certificate_provider_instance: "certificate provider plugins",
        }
    });
    let slot = cx.required(
        "validation_context_sds_secret_config",
        validation_context_sds_secret_config,
        |config, cx| Secrets::subscribe(config, SecretKind::Validation, cx),
    )?;
    Ok(ValidationSource::Combined(
        Box::new(default_validation_context.unwrap_or_default()),
        slot,
    ))
}
