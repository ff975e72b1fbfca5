//! Tokens whose signature was good once, of one provider on one thread: a signature costs more than all the rest of a
//! request. What depends on time, audience or issuer is checked for every request, and other keys look at a token anew.
//!
//! Half of the places are for those that were asked for of late; when they are taken, they become the other half, and
//! what was there is forgotten.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use xds_protos::envoy::extensions::filters::http::jwt_authn::v3::JwtCacheConfig as Proto;

use super::{jwks::Jwks, token::Token};
use crate::config::{BuildCx, ConfigResult};

/// `jwt_cache_size` and `jwt_max_token_size` unless they are set.
const PLACES: usize = 100;
const LONGEST: usize = 4096;

/// A provider's cache.
#[derive(Debug)]
pub(super) struct Cache {
    id: u64,
    /// Whether it is the one that `jwt_cache_config` asks for: Envoy counts the hits of no other.
    pub configured: bool,
    places: usize,
    longest: usize,
    /// Each thread's places are given up when this is gone.
    alive: Arc<()>,
}

impl Default for Cache {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            configured: false,
            places: PLACES,
            longest: LONGEST,
            alive: Arc::default(),
        }
    }
}

#[derive(Default)]
struct Places {
    recent: HashMap<Box<str>, Good>,
    older: HashMap<Box<str>, Good>,
}

/// A token that the keys have found good; others are to look at it again.
#[derive(Clone)]
struct Good {
    token: Rc<Token>,
    keys: u64,
}

thread_local! {
    static CACHES: RefCell<HashMap<u64, (Weak<()>, Places)>> = RefCell::default();
}

impl Cache {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { jwt_cache_size, jwt_max_token_size } });
        let or = |n: u32, default| if n == 0 { default } else { n as usize };
        Ok(Self {
            configured: true,
            places: or(jwt_cache_size, PLACES),
            longest: or(jwt_max_token_size, LONGEST),
            ..Self::default()
        })
    }

    /// The token of this text, and the number of the keys that have found it good.
    pub fn find(&self, text: &str) -> Option<(Rc<Token>, u64)> {
        CACHES.with_borrow_mut(|caches| {
            let (_, places) = caches.get_mut(&self.id)?;
            let good = match places.recent.get(text) {
                Some(good) => good.clone(),
                None => {
                    let (text, good) = places.older.remove_entry(text)?;
                    self.put(places, text, good.clone());
                    good
                }
            };
            Some((good.token, good.keys))
        })
    }

    /// Keeps a token that these keys have found good.
    pub fn keep(&self, text: &str, token: &Rc<Token>, keys: &Jwks) {
        if text.len() > self.longest {
            return;
        }
        let good = Good {
            token: token.clone(),
            keys: keys.id,
        };
        CACHES.with_borrow_mut(|caches| {
            if !caches.contains_key(&self.id) {
                caches.retain(|_, (alive, _)| alive.strong_count() > 0);
            }
            let (_, places) = caches
                .entry(self.id)
                .or_insert_with(|| (Arc::downgrade(&self.alive), Places::default()));
            self.put(places, text.into(), good);
        });
    }

    fn put(&self, places: &mut Places, text: Box<str>, good: Good) {
        places.recent.insert(text, good);
        if places.recent.len() > self.places / 2 {
            places.older = std::mem::take(&mut places.recent);
        }
    }
}
