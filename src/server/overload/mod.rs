//! The overload manager: what the proxy gives up first when a resource runs short
//! (`envoy.config.overload.v3.OverloadManager`).
//!
//! [`config`] builds it from the bootstrap. Every `refresh_interval` the control thread asks the resource monitors for
//! their pressure ([`refresh`]), turns it into levels by [`trigger`]s, and publishes them: a level is an atomic number
//! between 0 and 1 ([`level`]) that workers read where the decision is made. What a level cannot tell by being read is
//! pushed: listeners that stop accepting ([`accept`]), timers that are to run out sooner ([`timers`]), memory that is
//! given back ([`heap`]) and streams that are reset ([`streams`]).
//!
//! Without an `overload_manager` in the bootstrap there is none of this, and each place of decision looks at one
//! `Option`.

mod accept;
mod action;
mod config;
mod connections;
mod heap;
mod level;
mod monitor;
mod point;
mod refresh;
pub mod streams;
mod timers;
mod trigger;

use std::sync::{Arc, Mutex, PoisonError};

pub use accept::Accepting;
pub use action::Action;
pub use connections::ConnectionLimit;
pub use level::Level;
pub use monitor::{ErasedResourceMonitor, Monitor, MonitorError, ResourceMonitor, ResourceMonitorFactory};
pub use point::{LoadShedPoint, Point};
pub use timers::{ScaledTimer, Timeouts, expire};

use super::ServerContext;
use crate::config::ConfigResult;
use accept::Gate;
use refresh::Control;
use streams::MemoryClasses;

/// The overload manager of a process that has one.
pub struct OverloadManager {
    actions: [Level; Action::COUNT],
    points: [Option<Arc<LoadShedPoint>>; Point::COUNT],
    gate: Gate,
    /// `reduce_timeouts`, when it is configured.
    pub timeouts: Option<Timeouts>,
    /// `envoy.resource_monitors.global_downstream_max_connections`, when it is configured.
    pub connections: Option<Arc<ConnectionLimit>>,
    /// `reset_high_memory_stream`, when it is configured.
    pub memory: Option<MemoryClasses>,
    /// What the control thread works with once it is started.
    control: Mutex<Option<Control>>,
}

impl OverloadManager {
    /// Builds the manager of the server's bootstrap.
    ///
    /// # Errors
    /// Whatever Envoy refuses: unknown or repeated monitors, actions and triggers, and what monitors refuse.
    pub fn build(server: &Arc<ServerContext>) -> ConfigResult<Option<Arc<Self>>> {
        config::build(server)
    }

    /// Whether `action` is taken now; by chance while it is between idle and saturated.
    #[inline]
    pub fn takes(&self, action: Action) -> bool {
        self.actions[action as usize].happens()
    }

    /// Whether load is to be shed at `point` now; counted as shed then.
    #[inline]
    pub fn sheds(&self, point: Point) -> bool {
        self.points[point as usize].as_ref().is_some_and(|p| p.sheds())
    }

    /// Whether `point` is configured.
    pub fn has(&self, point: Point) -> bool {
        self.points[point as usize].is_some()
    }

    /// Tells an accept loop when to pause.
    pub fn accepting(&self) -> Accepting {
        self.gate.listen()
    }

    /// Starts the refresh, on the control thread. A second call has no effect.
    pub fn start(self: &Arc<Self>, server: &Arc<ServerContext>) {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(control) = control {
            refresh::start(control, self.clone(), server);
        }
    }
}

#[cfg(test)]
mod tests;
