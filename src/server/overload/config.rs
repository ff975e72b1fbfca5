//! `envoy.config.overload.v3.OverloadManager` -> [`OverloadManager`], with Envoy's order of checks and its words.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use xds_protos::{
    envoy::config::overload::v3::{
        BufferFactoryConfig, LoadShedPoint as PointProto, OverloadAction as ActionProto, OverloadManager as Proto,
        ResourceMonitor as MonitorProto, Trigger as TriggerProto, resource_monitor::ConfigType,
    },
    google::protobuf::Any,
};

use super::{
    Action, LoadShedPoint, OverloadManager, Point,
    accept::Gate,
    heap::HeapShrinker,
    monitor::Monitor,
    refresh::{ActionState, Control, PointState, Resource, Triggers},
    streams::MemoryClasses,
    timers::Timeouts,
    trigger::Trigger,
};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, DurationExt, plain},
    server::ServerContext,
    stats::Scope,
};

/// The name that every action may name as a trigger's resource, whether it is monitored or not.
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// Builds the manager of the bootstrap; none without `overload_manager`.
pub(super) fn build(server: &Arc<ServerContext>) -> ConfigResult<Option<Arc<OverloadManager>>> {
    let Some(proto) = server.bootstrap.overload_manager.clone() else {
        return Ok(None);
    };
    let mut cx = BuildCx::new(server);
    let cx = &mut cx;
    coverage!(cx, proto => Proto {
        supported { refresh_interval, resource_monitors, actions, loadshed_points, buffer_factory_config }
    });
    let scope = server.stats.scope("overload.");
    let mut manager = OverloadManager {
        actions: Default::default(),
        points: Default::default(),
        gate: Gate::default(),
        timeouts: None,
        connections: None,
        memory: None,
        control: Mutex::default(),
    };
    let mut control = Control {
        interval: refresh_interval
            .or_duration(Duration::from_secs(1))
            .max(Duration::from_millis(1)),
        resources: Vec::new(),
        connections: None,
        actions: Vec::new(),
        points: Vec::new(),
        heap: None,
        server: Arc::downgrade(server),
    };
    for proto in resource_monitors {
        monitor(proto, &mut manager, &mut control, &scope, cx)?;
    }
    let smallest = buffer_factory_config.map(|proto| {
        let BufferFactoryConfig {
            minimum_account_to_track_power_of_two: power,
        } = proto;
        power
    });
    for proto in actions {
        action(proto, smallest, &mut manager, &mut control, &scope, cx)?;
    }
    for proto in loadshed_points {
        point(proto, &mut manager, &mut control, &scope, cx)?;
    }
    manager.control = Mutex::new(Some(control));
    Ok(Some(Arc::new(manager)))
}

fn monitor(
    proto: MonitorProto,
    manager: &mut OverloadManager,
    control: &mut Control,
    scope: &Scope,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    coverage!(cx, proto => MonitorProto { supported { name, config_type } });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => plain(any, cx)?,
        None => Any::default(),
    };
    let server = cx.server.clone();
    // Whether a resource is claimed or sampled goes by its name; what monitors it by the type.
    let factory = server.registry.find_resource_monitor(&any);
    let Some(factory) = factory.filter(|factory| factory.proactive() == (name == CONNECTIONS)) else {
        return Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{}'",
            any.type_name()
        )));
    };
    let known = control.resources.iter().any(|r| r.name == name);
    if known || name == CONNECTIONS && manager.connections.is_some() {
        return Err(cx.error(format!("Duplicate resource monitor {name}")));
    }
    match factory.build(&any, cx)? {
        Monitor::Sampled(monitor) => control.resources.push(Resource::new(name, monitor, scope)),
        Monitor::Connections(limit) => {
            let resource = Resource::new(name, limit.clone(), scope);
            limit.count_failures(&resource.failed_updates);
            control.connections = Some(resource);
            manager.connections = Some(limit);
        }
    }
    Ok(())
}

fn action(
    proto: ActionProto,
    smallest: Option<u32>,
    manager: &mut OverloadManager,
    control: &mut Control,
    scope: &Scope,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    coverage!(cx, proto => ActionProto { supported { name, triggers, typed_config } });
    let Some(action) = Action::from_name(&name) else {
        return Err(cx.error(format!("Unknown Overload Manager Action {name}")));
    };
    let resources: Vec<String> = triggers.iter().map(|t| t.name.clone()).collect();
    let triggers = build_triggers(triggers, || format!("overload action {name}"), cx)?;
    if control.actions.iter().any(|a| a.action == action) {
        return Err(cx.error(format!("Duplicate overload action {name}")));
    }
    match action {
        Action::ReduceTimeouts => match typed_config {
            Some(any) => manager.timeouts = Some(Timeouts::build(any, cx)?),
            None => return Err(cx.error(format!("Overload action \"{name}\" requires typed_config"))),
        },
        Action::ResetHighMemoryStream => {
            let Some(smallest) = smallest else {
                return Err(cx.error(format!("Overload action \"{name}\" requires buffer_factory_config.")));
            };
            let reset = cx.server.stats.root().counter(&format!("{name}.count"));
            manager.memory = Some(MemoryClasses::new(smallest, reset));
        }
        Action::ShrinkHeap => control.heap = Some(HeapShrinker::build(typed_config, scope, cx)?),
        _ if typed_config.is_some() => {
            return Err(cx.error(format!(
                "Overload action name \"{name}\" conflicts with its typed config"
            )));
        }
        _ => {}
    }
    for resource in resources {
        if resource != CONNECTIONS && !control.resources.iter().any(|r| r.name == resource) {
            return Err(cx.error(format!(
                "Unknown trigger resource {resource} for overload action {name}"
            )));
        }
    }
    control.actions.push(ActionState::new(action, triggers, scope));
    Ok(())
}

fn point(
    proto: PointProto,
    manager: &mut OverloadManager,
    control: &mut Control,
    scope: &Scope,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<()> {
    coverage!(cx, proto => PointProto { supported { name, triggers } });
    if control.actions.iter().any(|a| a.action.name() == name) {
        return Err(cx.error(format!(
            "Load shed point \"{name}\" conflicts with an overload action of the same name"
        )));
    }
    for trigger in &triggers {
        // What connections claim is no resource for load-shed points, as in Envoy.
        if !control.resources.iter().any(|r| r.name == trigger.name) {
            return Err(cx.error(format!(
                "Unknown trigger resource {} for loadshed point {name}",
                trigger.name
            )));
        }
    }
    let triggers = build_triggers(triggers, || format!("LoadShedPoint {name}"), cx)?;
    if control.points.iter().any(|p| p.name == name) {
        return Err(cx.error(format!("Duplicate loadshed point {name}")));
    }
    let built = Arc::new(LoadShedPoint::new(&name, scope));
    if let Some(point) = Point::from_name(&name) {
        manager.points[point as usize] = Some(built.clone());
    }
    control.points.push(PointState {
        name,
        triggers,
        point: built,
    });
    Ok(())
}

fn build_triggers(protos: Vec<TriggerProto>, of: impl Fn() -> String, cx: &mut BuildCx<'_>) -> ConfigResult<Triggers> {
    let mut known = HashSet::new();
    let mut built = Vec::with_capacity(protos.len());
    for proto in protos {
        let (resource, trigger) = Trigger::build(proto, cx)?;
        if !known.insert(resource.clone()) {
            return Err(cx.error(format!("Duplicate trigger resource for {}", of())));
        }
        built.push((resource, trigger, 0.0));
    }
    Ok(Triggers(built))
}
