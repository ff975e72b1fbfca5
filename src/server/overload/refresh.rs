//! The refresh on the control thread: pressures in, levels out.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    Action, ConnectionLimit, Level, LoadShedPoint, OverloadManager, heap::HeapShrinker, monitor::ResourceMonitor,
    streams, trigger::Trigger,
};
use crate::{
    net::wake_deadlines,
    server::{ServerContext, WorkerMsg},
    stats::{Counter, Gauge, Scope},
};

/// What the refresh works with.
pub(super) struct Control {
    pub(super) interval: Duration,
    pub(super) resources: Vec<Resource<Box<dyn ResourceMonitor>>>,
    pub(super) connections: Option<Resource<Arc<ConnectionLimit>>>,
    pub(super) actions: Vec<ActionState>,
    pub(super) points: Vec<PointState>,
    pub(super) heap: Option<HeapShrinker>,
    pub(super) server: Weak<ServerContext>,
}

/// A resource, its monitor and its statistics.
pub(super) struct Resource<M> {
    pub(super) name: String,
    monitor: M,
    pressure: Gauge,
    pub(super) failed_updates: Counter,
    _skipped_updates: Counter,
}

impl<M> Resource<M> {
    pub(super) fn new(name: String, monitor: M, scope: &Scope) -> Self {
        let stat = |suffix: &str| format!("{name}.{suffix}");
        Self {
            pressure: scope.gauge(&stat("pressure")),
            failed_updates: scope.counter(&stat("failed_updates")),
            // Monitors answer at once here, so no update is passed over.
            _skipped_updates: scope.counter(&stat("skipped_updates")),
            name,
            monitor,
        }
    }
}

/// Triggers by the name of their resource, with their level now.
pub(super) struct Triggers(pub(super) Vec<(String, Trigger, f32)>);

impl Triggers {
    /// The new level of the trigger of this resource, if it has changed.
    fn update(&mut self, resource: &str, pressure: f64) -> Option<f32> {
        let (_, trigger, level) = self.0.iter_mut().find(|(name, ..)| name == resource)?;
        let now = trigger.level(pressure);
        (std::mem::replace(level, now) != now).then_some(now)
    }

    /// The highest level of all.
    fn level(&self) -> f32 {
        self.0.iter().map(|(.., level)| *level).fold(0.0, f32::max)
    }
}

/// An action that is configured.
pub(super) struct ActionState {
    pub(super) action: Action,
    triggers: Triggers,
    active: Gauge,
    scale_percent: Gauge,
    level: f32,
}

impl ActionState {
    pub(super) fn new(action: Action, triggers: Triggers, scope: &Scope) -> Self {
        let gauge = |suffix: &str| scope.gauge(&format!("{}.{suffix}", action.name()));
        Self {
            active: gauge("active"),
            scale_percent: gauge("scale_percent"),
            action,
            triggers,
            level: 0.0,
        }
    }

    /// Whether the action's level has changed. The gauges tell of the trigger that moved last, as in Envoy.
    fn update(&mut self, resource: &str, pressure: f64) -> bool {
        let Some(of_trigger) = self.triggers.update(resource, pressure) else {
            return false;
        };
        self.active.set(u64::from(of_trigger >= 1.0));
        self.scale_percent.set((of_trigger * 100.0) as u64);
        let level = self.triggers.level();
        std::mem::replace(&mut self.level, level) != level
    }
}

/// A load-shed point that is configured, known here or not.
pub(super) struct PointState {
    pub(super) name: String,
    pub(super) triggers: Triggers,
    pub(super) point: Arc<LoadShedPoint>,
}

/// Refreshes from now on. Nothing is done where every resource is claimed and none sampled, as in Envoy.
pub(super) fn start(mut control: Control, manager: Arc<OverloadManager>, server: &Arc<ServerContext>) {
    if control.resources.is_empty() {
        return;
    }
    let stats = server.overload_stats.clone();
    tokio::task::spawn_local(async move {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(control.interval).await;
            control.refresh(&manager);
            let now = Instant::now();
            let delay = now.duration_since(last).as_millis();
            last = now;
            let delay = u64::try_from(delay).unwrap_or(u64::MAX);
            stats.local().refresh_interval_delay.record(delay);
        }
    });
}

impl Control {
    /// Asks all monitors once and publishes what has changed.
    pub(super) fn refresh(&mut self, manager: &OverloadManager) {
        for at in 0..self.resources.len() {
            let Some(resource) = self.resources.get_mut(at) else {
                break;
            };
            match resource.monitor.pressure() {
                Ok(pressure) => {
                    let name = resource.name.clone();
                    self.apply(&name, pressure, manager);
                    if let Some(resource) = self.resources.get(at) {
                        // Told last: whoever sees it finds the levels in force.
                        resource.pressure.set((pressure * 100.0) as u64);
                    }
                }
                Err(error) => {
                    tracing::info!(resource = resource.name, %error, "a resource could not be read");
                    resource.failed_updates.inc();
                }
            }
        }
        if let Some(connections) = &self.connections {
            let (name, pressure) = (connections.name.clone(), connections.monitor.pressure());
            connections.pressure.set((pressure * 100.0) as u64);
            self.apply(&name, pressure, manager);
        }
    }

    /// A resource has this pressure now.
    fn apply(&mut self, resource: &str, pressure: f64, manager: &OverloadManager) {
        for at in 0..self.actions.len() {
            if let Some(state) = self.actions.get_mut(at)
                && state.update(resource, pressure)
            {
                let (action, level) = (state.action, state.level);
                self.publish(action, level, manager);
            }
        }
        for state in &mut self.points {
            if state.triggers.update(resource, pressure).is_some() {
                state.point.set(state.triggers.level());
            }
        }
    }

    fn publish(&mut self, action: Action, level: f32, manager: &OverloadManager) {
        let name = action.name();
        tracing::debug!(action = name, level, "an overload action has changed");
        Level::set(&manager.actions[action as usize], level);
        let Some(server) = self.server.upgrade() else { return };
        match action {
            Action::StopAcceptingConnections => manager.gate.set(level < 1.0),
            Action::ShrinkHeap => {
                if let Some(heap) = &mut self.heap {
                    heap.set(level >= 1.0);
                }
            }
            Action::ReduceTimeouts => {
                if let Some(timeouts) = &manager.timeouts {
                    timeouts.set(level);
                    // Those that wait look at their timers again.
                    let wake = |_| WorkerMsg::Run(Box::new(|_| wake_deadlines()));
                    server.mailboxes.to_traffic(wake);
                }
            }
            Action::ResetHighMemoryStream => {
                server.mailboxes.to_traffic(|_| {
                    WorkerMsg::Run(Box::new(move |worker| {
                        let overload = worker.server.overload();
                        if let Some(classes) = overload.and_then(|o| o.memory.as_ref()) {
                            streams::reset(classes, level);
                        }
                    }))
                });
            }
            _ => {}
        }
    }
}
