//! Session tickets: sealed with keys of the context, so that a session is never resumed where other rules hold.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustls::server::ProducesTickets;
use xds_protos::envoy::extensions::transport_sockets::tls::v3::TlsSessionTicketKeys;

use crate::config::{BuildCx, ConfigResult, read_data_source};

/// BoringSSL's lifetime of a session when `session_timeout` is not set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// Envoy's size of a ticket key: a name of 16 bytes, then 32 bytes each for authentication and encryption.
const KEY_LEN: usize = 80;
const NAME_LEN: usize = 16;
const TIME_LEN: usize = 8;

/// Reads `TlsSessionTicketKeys`: the first key seals, all open.
pub(super) fn read_keys(proto: TlsSessionTicketKeys, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<Vec<u8>>> {
    coverage!(cx, proto => TlsSessionTicketKeys { supported { keys } });
    cx.each("keys", keys, |source, cx| {
        let key = read_data_source(source, cx)?;
        if key.len() != KEY_LEN {
            return Err(cx.error(format!(
                "Incorrect TLS session ticket key length. Length {}, expected length {KEY_LEN}.",
                key.len()
            )));
        }
        Ok(key)
    })
}

/// Seals and opens tickets of one context.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Vec<TicketKey>,
    timeout: Duration,
}

#[derive(Debug)]
struct TicketKey {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl Tickets {
    /// With the configured keys, or with one of its own when there are none. `context` binds tickets to what the
    /// context demands: a key that several listeners share does not carry a session from one to another.
    pub fn new(keys: &[Vec<u8>], context: &[u8], timeout: Option<Duration>) -> Option<Arc<Self>> {
        let own;
        let keys = match keys {
            [] => {
                let mut random = vec![0; KEY_LEN];
                SystemRandom::new().fill(&mut random).ok()?;
                own = [random];
                &own[..]
            }
            keys => keys,
        };
        let keys = keys
            .iter()
            .map(|key| TicketKey::new(key, context))
            .collect::<Option<_>>()?;
        Some(Arc::new(Self {
            keys,
            timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        }))
    }
}

impl TicketKey {
    fn new(configured: &[u8], context: &[u8]) -> Option<Self> {
        let derive = |what: &[u8]| {
            let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, configured));
            mac.update(what);
            mac.update(context);
            mac.sign()
        };
        let mut name = [0; NAME_LEN];
        name.copy_from_slice(derive(b"name").as_ref().get(..NAME_LEN)?);
        let key = UnboundKey::new(&AES_256_GCM, derive(b"key").as_ref()).ok()?;
        Some(Self {
            name,
            key: LessSafeKey::new(key),
        })
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX)
    }

    /// key name, nonce, sealed(time, session)
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let TicketKey { name, key } = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(TIME_LEN + plain.len());
        sealed.extend_from_slice(&now().to_be_bytes());
        sealed.extend_from_slice(plain);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed)
            .ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + sealed.len());
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&nonce);
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let TicketKey { name, key } = self.keys.iter().find(|k| k.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(name), &mut sealed).ok()?;
        let (time, session) = plain.split_at_checked(TIME_LEN)?;
        let sealed_at = u64::from_be_bytes(time.try_into().ok()?);
        (now().saturating_sub(sealed_at) <= self.timeout.as_secs()).then(|| session.to_vec())
    }
}
