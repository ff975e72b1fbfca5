//! What a new configuration takes over from the one that it replaces: filter chains that did not change, with their
//! connections, statistics and everything in them.

use std::sync::{Arc, atomic::AtomicU64};

use xds_protos::envoy::config::listener::v3::{FilterChain as Proto, Listener};

use super::compare::{Known, same_chain};
use crate::{
    config::{BuildCx, ConfigResult},
    listener::{ExactBalance, FilterChain, ListenerConfig},
};

/// The chains of a listener that is updated in place; none of a new one.
#[derive(Default)]
pub struct Kept<'a>(Option<Origin<'a>>);

struct Origin<'a> {
    config: &'a ListenerConfig,
    known: Known<'a>,
    default: Option<&'a Proto>,
}

impl<'a> Kept<'a> {
    /// Of a listener with the message that it was built of.
    pub(super) fn of(config: &'a ListenerConfig, proto: &'a Listener) -> Self {
        Self(Some(Origin {
            config,
            known: Known::new(&proto.filter_chains),
            default: proto.default_filter_chain.as_ref(),
        }))
    }

    /// A chain as it is, or a new one.
    pub fn chain(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<FilterChain>> {
        let same = self.0.as_ref().and_then(|origin| {
            let at = origin.known.find(&proto)?;
            origin.config.chains.chains().nth(at)
        });
        match same {
            Some(chain) => Ok(chain.clone()),
            None => FilterChain::build(proto, cx).map(Arc::new),
        }
    }

    /// The same of the default chain.
    pub fn default_chain(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<FilterChain>> {
        let same = self.0.as_ref().and_then(|origin| {
            let same = origin.default.is_some_and(|known| same_chain(known, &proto));
            same.then(|| origin.config.chains.default_chain()).flatten()
        });
        match same {
            Some(chain) => Ok(chain.clone()),
            None => FilterChain::build(proto, cx).map(Arc::new),
        }
    }

    /// How its connections are spread over the workers.
    pub fn balance(&self) -> Option<Arc<ExactBalance>> {
        self.0.as_ref()?.config.balance.clone()
    }

    /// The count of the listener's connections.
    pub fn open(&self) -> Arc<AtomicU64> {
        self.0
            .as_ref()
            .map(|origin| origin.config.open.clone())
            .unwrap_or_default()
    }
}
