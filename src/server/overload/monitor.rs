//! What a resource monitor is: an extension that tells how much of a resource is used.

use std::sync::Arc;

use xds_protos::{
    google::protobuf::Any,
    prost::{Message, Name},
};

use super::ConnectionLimit;
use crate::config::{BuildCx, ConfigResult, unpack};

/// What a resource monitor extension is, typed for its author.
pub trait ResourceMonitorFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.resource_monitors.fixed_heap`.
    const NAME: &'static str;
    /// The resource is claimed and given back as it is used, and not sampled; such a monitor goes by its name.
    const PROACTIVE: bool = false;
    /// The monitor's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the monitor.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor>;
}

/// A built monitor.
pub enum Monitor {
    /// Asked at every refresh.
    Sampled(Box<dyn ResourceMonitor>),
    /// Claimed by each connection.
    Connections(Arc<ConnectionLimit>),
}

/// A monitor that is asked at every refresh, on the control thread.
pub trait ResourceMonitor: Send {
    /// How much of the resource is used: 0 is nothing, 1 all of it; more is possible.
    ///
    /// # Errors
    /// Counted as `failed_updates`; the pressure stays what it was.
    fn pressure(&mut self) -> Result<f64, MonitorError>;
}

/// Why a monitor cannot tell.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A file of the system, or the monitor's own.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: unexpected content '{content}'")]
    Content {
        /// The file.
        path: String,
        /// What stands there.
        content: String,
    },
    /// Nothing has happened since the last time.
    #[error("no time has passed since the last reading")]
    NoTime,
}

/// A [`ResourceMonitorFactory`] with its type erased.
pub trait ErasedResourceMonitor: Send + Sync {
    /// Envoy's extension name.
    fn name(&self) -> &'static str;
    /// See [`ResourceMonitorFactory::PROACTIVE`].
    fn proactive(&self) -> bool;
    /// Opens and builds the monitor's configuration.
    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor>;
}

impl<F: ResourceMonitorFactory> ErasedResourceMonitor for F {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn proactive(&self) -> bool {
        F::PROACTIVE
    }

    fn build(&self, any: &Any, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor> {
        let proto = unpack::<F::Proto>(any, cx)?;
        ResourceMonitorFactory::build(self, proto, cx)
    }
}
