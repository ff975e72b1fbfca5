//! What `/certs` and `/config_dump` show of TLS. Called where rendering runs, never by a worker.

use std::{
    sync::{Arc, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use xds_protos::{
    envoy::{
        admin::v3::{
            Certificate, CertificateDetails, Certificates, SecretsConfigDump, SubjectAlternateName,
            secrets_config_dump::{DynamicSecret, StaticSecret},
            subject_alternate_name::Name,
        },
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret, secret::Type},
    },
    google::protobuf::Timestamp,
};

use super::{cert_info, common::Material, secrets::SecretSlot};
use crate::{config::BuildCx, http::stream_info::CertInfo, server::ServerContext, xds::timestamp};

/// A context whose certificates are listed.
pub(super) trait TlsContext: Send + Sync {
    /// Its secrets as they are now.
    fn material(&self, cx: &mut BuildCx<'_>) -> Option<Material>;
}

/// All certificates in use, for `/certs`.
pub fn certificates(server: &Arc<ServerContext>) -> Certificates {
    let mut cx = BuildCx::new(server);
    let mut certificates = Vec::new();
    for context in server.secrets.contexts() {
        let Some(Material { identities, validator }) = context.material(&mut cx) else {
            continue;
        };
        let ca_cert: Vec<_> = validator
            .iter()
            .filter_map(|v| {
                let first = v.trusted().first().copied()?.clone();
                Some(details(&cert_info::read(&[first]), &v.ca_path))
            })
            .collect();
        let cert_chain: Vec<_> = identities.iter().map(|i| details(&i.info, &i.path)).collect();
        if !ca_cert.is_empty() || !cert_chain.is_empty() {
            certificates.push(Certificate { ca_cert, cert_chain });
        }
    }
    Certificates { certificates }
}

fn details(info: &CertInfo, path: &str) -> CertificateDetails {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let left = u64::try_from(info.not_after).unwrap_or(0).saturating_sub(now);
    let name = |name| SubjectAlternateName { name: Some(name) };
    let dns = info.dns_sans.iter().map(|s| name(Name::Dns(s.clone())));
    let uri = info.uri_sans.iter().map(|s| name(Name::Uri(s.clone())));
    let ip = info.ip_sans.iter().map(|s| name(Name::IpAddress(s.clone())));
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    CertificateDetails {
        path: path.to_owned(),
        serial_number: info.serial.clone(),
        subject_alt_names: dns.chain(uri).chain(ip).collect(),
        days_until_expiration: left / (24 * 60 * 60),
        valid_from: time(info.not_before),
        expiration_time: time(info.not_after),
        ocsp_details: None,
    }
}

/// The secrets, for `/config_dump`: private keys and passwords are blanked.
pub fn secrets_config_dump(server: &Arc<ServerContext>) -> SecretsConfigDump {
    let (statics, dynamic) = server.secrets.all();
    let static_secrets = statics
        .iter()
        .filter_map(|slot| {
            let applied = slot.applied()?;
            Some(StaticSecret {
                name: slot.name().to_string(),
                last_updated: Some(timestamp(applied.last_updated)),
                secret: Some(xds_protos::any::pack(&redact(applied.proto.clone()))),
            })
        })
        .collect();
    let (active, warming): (Vec<_>, Vec<_>) = dynamic.iter().partition(|slot| slot.applied().is_some());
    SecretsConfigDump {
        static_secrets,
        dynamic_active_secrets: active.into_iter().map(dynamic_secret).collect(),
        dynamic_warming_secrets: warming.into_iter().map(dynamic_secret).collect(),
    }
}

fn dynamic_secret(slot: &Arc<SecretSlot>) -> DynamicSecret {
    let mut secret = DynamicSecret {
        name: slot.name().to_string(),
        ..DynamicSecret::default()
    };
    match slot.applied() {
        Some(applied) => {
            secret.version_info.clone_from(&applied.version);
            secret.last_updated = Some(timestamp(applied.last_updated));
            secret.secret = Some(xds_protos::any::pack(&redact(applied.proto.clone())));
        }
        None => {
            secret.version_info = "uninitialized".into();
            secret.secret = Some(xds_protos::any::pack(&Secret {
                name: slot.name().to_string(),
                r#type: None,
            }));
        }
    }
    secret
}

/// A secret without what must stay secret.
pub fn redact(mut secret: Secret) -> Secret {
    let blank = |source: &mut Option<DataSource>| {
        if let Some(source) = source {
            match &mut source.specifier {
                Some(Specifier::InlineBytes(bytes)) => *bytes = b"[redacted]".to_vec(),
                Some(Specifier::InlineString(text)) => *text = "[redacted]".into(),
                _ => {}
            }
        }
    };
    match &mut secret.r#type {
        Some(Type::TlsCertificate(c)) => {
            blank(&mut c.private_key);
            blank(&mut c.password);
            blank(&mut c.pkcs12);
        }
        Some(Type::SessionTicketKeys(keys)) => {
            for key in &mut keys.keys {
                let mut source = Some(std::mem::take(key));
                blank(&mut source);
                *key = source.unwrap_or_default();
            }
        }
        Some(Type::GenericSecret(generic)) => {
            blank(&mut generic.secret);
            for source in generic.secrets.values_mut() {
                let mut taken = Some(std::mem::take(source));
                blank(&mut taken);
                *source = taken.unwrap_or_default();
            }
        }
        Some(Type::ValidationContext(_)) | None => {}
    }
    secret
}

/// Contexts that are alive, for [`certificates`].
#[derive(Default)]
pub(super) struct Contexts(std::sync::Mutex<Vec<Weak<dyn TlsContext>>>);

impl Contexts {
    /// Adds one; those that are gone are forgotten.
    pub fn add(&self, context: Weak<dyn TlsContext>) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Only now and then: contexts come by thousands at start.
        if all.len() == all.capacity() {
            all.retain(|c| c.strong_count() > 0);
        }
        all.push(context);
    }

    /// All that are alive.
    pub fn alive(&self) -> Vec<Arc<dyn TlsContext>> {
        let all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}
