//! A generic secret as bytes: a token or password of a filter, which may change while it is in use.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use xds_protos::envoy::extensions::transport_sockets::tls::v3::{GenericSecret as Proto, SdsSecretConfig};

use crate::{
    config::{BuildCx, ConfigResult, read_data_source},
    tls::{Candidate, SecretKind, SecretSlot, SecretUser, SecretValue, Secrets},
};

/// A secret that follows its source.
pub struct GenericSecret {
    slot: Arc<SecretSlot>,
    /// None before the first good version.
    bytes: ArcSwapOption<Vec<u8>>,
}

impl GenericSecret {
    /// Subscribes to a secret, or finds the static one of its name.
    pub fn subscribe(config: SdsSecretConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let slot = Secrets::subscribe(config, SecretKind::Generic, cx)?;
        let secret = Arc::new(Self {
            slot: slot.clone(),
            bytes: ArcSwapOption::empty(),
        });
        let user: Arc<dyn SecretUser> = secret.clone();
        let user: Weak<dyn SecretUser> = Arc::downgrade(&user);
        slot.register(user);
        if let Some(value) = slot.value(None) {
            secret.bytes.store(read(value, cx)?.map(Arc::new));
        }
        Ok(secret)
    }

    /// The secret as of now; none before it came.
    pub fn get(&self) -> Option<Arc<Vec<u8>>> {
        self.bytes.load_full()
    }
}

impl SecretUser for GenericSecret {
    fn prepare(&self, candidate: &Candidate<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn FnOnce() + '_>> {
        let bytes = match self.slot.value(Some(candidate)) {
            Some(value) => read(value, cx)?,
            None => None,
        };
        Ok(Box::new(move || self.bytes.store(bytes.map(Arc::new))))
    }
}

fn read(value: SecretValue, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Vec<u8>>> {
    let SecretValue::Generic(proto) = value else {
        return Ok(None);
    };
    let proto = Proto::clone(&proto);
    coverage!(cx, proto => Proto {
        supported { secret }
        ignored { secrets: "one secret is read" }
    });
    cx.opt("secret", secret, read_data_source)
}
