//! A listener comes, or comes again: what is new in it, and whether it can be had.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::SystemTime,
};

use xds_protos::{envoy::config::listener::v3::Listener as Proto, google::protobuf::Any, prost::Message};

use super::{
    Kept, ListenerManager, ListenerSnapshot, State,
    compare::{only_chains_differ, same_listener},
    sockets::{self, Sockets},
};
use crate::{
    cli::Mode,
    config::{BuildCx, ConfigError, ConfigResult},
    listener::ListenerConfig,
    net::{Address, ListenOptions},
    server::ServerContext,
};

impl ListenerManager {
    /// Adds a listener or replaces the one of its name; false when that changes nothing: it is the same again, the one
    /// of its name is static, or listeners of its direction are stopped.
    ///
    /// What the listener waits for (route tables, secrets) is awaited on the control thread; until then
    /// the listener of the same name that serves goes on. Sockets are bound here, so that an address in use
    /// is the caller's error. Where only filter chains differ, those that are the same go on as they are.
    pub fn add_or_update(
        &self,
        mut proto: Proto,
        version: &str,
        resource: Any,
        is_static: bool,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<bool> {
        if proto.name.is_empty() {
            proto.name = uuid::Uuid::new_v4().to_string();
        }
        let name = proto.name.clone();
        let fingerprint = fingerprint(&proto);
        let Some(before) = self.before(&proto, fingerprint, is_static) else {
            return Ok(false);
        };
        if before.reverted {
            self.stats.local().listener_modified.inc();
            return Ok(true);
        }

        let mut cx = BuildCx::new(server);
        let origin = before.active.as_ref().filter(|_| before.open).and_then(|active| {
            let known = active.proto()?;
            let same_port = reuse_port(&known) == reuse_port(&proto);
            let in_place = !proto.filter_chains.is_empty() && same_port && only_chains_differ(&known, &proto);
            in_place.then_some((active, known))
        });
        let kept = origin.as_ref().map(|(active, known)| Kept::of(&active.config, known));
        let config = ListenerConfig::build(proto, fingerprint, &kept.unwrap_or_default(), &mut cx)?;
        let config = Arc::new(config);
        for ignored in &cx.ignored {
            tracing::warn!(listener = %name, field = %ignored.path, "field has no effect: {}", ignored.why);
        }
        let in_place = origin.is_some();
        let snapshot = match origin.map(|(active, _)| active.clone()) {
            Some(active) => ListenerSnapshot {
                config,
                resource,
                last_updated: SystemTime::now(),
                ..active
            },
            None => {
                let sockets = self.sockets(&config, before.newest(), server)?;
                ListenerSnapshot {
                    bound: bound(&config, &sockets),
                    config,
                    resource,
                    version: version.into(),
                    last_updated: SystemTime::now(),
                    is_static,
                    tag: self.state().next_id(),
                    sockets,
                    drained: None,
                }
            }
        };
        self.warm(snapshot, cx.init, server);
        // Last: who sees the count may rely on what it counts.
        let stats = self.stats.local();
        if in_place {
            stats.listener_in_place_updated.inc();
        }
        match before.newest() {
            Some(_) => stats.listener_modified.inc(),
            None => stats.listener_added.inc(),
        }
        Ok(true)
    }

    /// What a listener comes upon; none when it changes nothing.
    fn before(&self, proto: &Proto, fingerprint: u64, is_static: bool) -> Option<Before> {
        let mut state = self.state();
        if state
            .stopped
            .is_some_and(|scope| scope.takes_direction(proto.traffic_direction))
        {
            tracing::debug!(listener = %proto.name, "listeners of this direction are stopped");
            return None;
        }
        let same = |known: &ListenerSnapshot| {
            known.config.fingerprint == fingerprint || known.proto().is_some_and(|known| same_listener(&known, proto))
        };
        let locked = |known: &ListenerSnapshot| known.is_static && !is_static || same(known);
        let warming = state.warming.get(&proto.name).map(|w| w.snapshot.clone());
        let active = state.active.get(&proto.name).cloned();
        let reverted = warming.is_some() && active.as_ref().is_some_and(locked);
        if reverted {
            // Back to what serves.
            state.warming.shift_remove(&proto.name);
            self.count(&state);
        } else if warming.as_ref().is_some_and(locked) || active.as_ref().is_some_and(locked) {
            return None;
        }
        Some(Before {
            warming,
            active,
            reverted,
            open: state.open,
        })
    }

    /// The sockets of a listener: those of the one before it where the addresses are the same, else new ones.
    fn sockets(
        &self,
        config: &ListenerConfig,
        before: Option<&ListenerSnapshot>,
        server: &Arc<ServerContext>,
    ) -> ConfigResult<Sockets> {
        let reuses = |config: &ListenerConfig| config.addresses.first().is_some_and(|(_, o)| o.reuse_port);
        if before.is_some_and(|before| reuses(&before.config) != reuses(config)) {
            return Err(ConfigError::new(
                "",
                format!(
                    "Listener {}: reuse port cannot be changed during an update",
                    config.name
                ),
            ));
        }
        if !before.is_some_and(|before| sockets::same_addresses(&before.config, config)) {
            check_addresses(config, reuses(config), &self.state())?;
        }
        // Validation binds nothing: the addresses may be another machine's. Without a socket of its own a listener takes
        // connections that another hands on.
        if !config.bind_to_port || server.cli.mode == Mode::Validate {
            return Ok(Vec::new());
        }
        let mut there = before.map(|before| before.sockets.clone()).unwrap_or_default();
        there.extend(self.state().leaving.iter().flatten().cloned());
        sockets::take_over_or_open(config, &there, server)
            // Configurations that are refused before are counted with LDS.
            .inspect_err(|_| self.stats.local().listener_create_failure.inc())
    }
}

struct Before {
    warming: Option<ListenerSnapshot>,
    active: Option<ListenerSnapshot>,
    reverted: bool,
    open: bool,
}

impl Before {
    fn newest(&self) -> Option<&ListenerSnapshot> {
        self.warming.as_ref().or(self.active.as_ref())
    }
}

fn bound(config: &ListenerConfig, sockets: &Sockets) -> Vec<Address> {
    match config.internal {
        true => config.addresses.iter().map(|(a, _)| a.clone()).collect(),
        false => sockets.iter().map(|held| held.bound.clone()).collect(),
    }
}

/// Two listeners may not have the same address, unless the port is 0. A listener may have that of its own earlier
/// version, if both may bind it.
fn check_addresses(config: &ListenerConfig, reuse_port: bool, state: &State) -> ConfigResult<()> {
    let known = state.active.values().chain(state.warming.values().map(|w| &w.snapshot));
    for other in known.filter(|o| !(reuse_port && o.config.name == config.name)) {
        let taken = |(address, options): &(Address, ListenOptions)| {
            // The ports of TCP and of UDP are apart, and so are network namespaces.
            let same = |(a, o): &(Address, ListenOptions)| {
                a == address && o.datagram == options.datagram && o.namespace == options.namespace
            };
            let counts = address.port() != Some(0) || !config.bind_to_port;
            counts && other.config.addresses.iter().any(same)
        };
        if config.addresses.iter().any(taken) {
            let addresses: Vec<_> = config.addresses.iter().map(|(a, _)| a.to_string()).collect();
            return Err(ConfigError::new(
                "",
                format!(
                    "error adding listener: '{}' has duplicate address '{}' as existing listener, to check if the listener has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener",
                    config.name,
                    addresses.join(",")
                ),
            ));
        }
    }
    Ok(())
}

/// `enable_reuse_port`, whose default is not that of its type.
fn reuse_port(proto: &Proto) -> bool {
    proto.enable_reuse_port.is_none_or(|v| v.value) || proto.enable_reuse_port.is_none() && proto.reuse_port
}

/// A hash of the resource. Encoding is stable within one process but for maps, whose order may make a
/// repetition look like a change, never the other way round.
fn fingerprint(proto: &Proto) -> u64 {
    let mut hasher = DefaultHasher::new();
    proto.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}
