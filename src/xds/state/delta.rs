//! Incremental: requests say what changed in the interest, responses what changed in the resources.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use xds_protos::{
    envoy::{
        config::core::v3::{ControlPlane, Node},
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    google::rpc::Status,
};

use super::{NACK_CODE, Protocol};
use crate::{
    server::ServerContext,
    xds::{
        handler::{FetchFailure, Rejected},
        watch_map::{WILDCARD, WatchMap},
        wire::{self, Decoded},
    },
};

/// One type's state.
#[derive(Debug, Default)]
pub(in crate::xds) struct Delta {
    // Names asked for, `*` among them.
    wanted: BTreeSet<String>,
    // Versions held, of wanted names and of what the wildcard brought; told to the next stream.
    versions: BTreeMap<String, String>,
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    acks: VecDeque<Ack>,
    // Whether something was sent on this stream.
    asked: bool,
}

#[derive(Debug)]
struct Ack {
    nonce: String,
    error: Option<Status>,
}

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn opened(&mut self) {
        self.asked = false;
        self.acks.clear();
        self.unsubscribe.clear();
    }

    fn watched(&mut self, name: &str, first: bool) {
        if first {
            self.wanted.insert(name.to_owned());
            // Removed and added again before a request went out: it counts as new, so that it is sent again.
            self.unsubscribe.remove(name);
            self.subscribe.insert(name.to_owned());
        }
    }

    fn unwatched(&mut self, name: &str) {
        self.wanted.remove(name);
        self.subscribe.remove(name);
        self.unsubscribe.insert(name.to_owned());
        if name == WILDCARD {
            let wanted = &self.wanted;
            self.versions.retain(|held, _| wanted.contains(held));
        } else if !self.wanted.contains(WILDCARD) {
            self.versions.remove(name);
        }
    }

    fn wants_to_send(&self, _map: &WatchMap) -> bool {
        if !self.asked {
            return !self.wanted.is_empty();
        }
        !self.acks.is_empty() || !self.subscribe.is_empty() || !self.unsubscribe.is_empty()
    }

    fn request(&mut self, map: &WatchMap) -> DeltaDiscoveryRequest {
        let mut request = DeltaDiscoveryRequest {
            type_url: map.type_url.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        if !self.asked {
            self.asked = true;
            self.subscribe = self.wanted.clone();
            // Only the wildcard: the older form, no names on a stream's first request, which every server knows.
            if self.subscribe.iter().eq([WILDCARD]) {
                self.subscribe.clear();
            }
            request.initial_resource_versions = self.versions.clone().into_iter().collect();
        }
        request.resource_names_subscribe = std::mem::take(&mut self.subscribe).into_iter().collect();
        request.resource_names_unsubscribe = std::mem::take(&mut self.unsubscribe).into_iter().collect();
        if let Some(Ack { nonce, error }) = self.acks.pop_front() {
            request.response_nonce = nonce;
            request.error_detail = error;
        }
        request
    }

    fn set_node(request: &mut DeltaDiscoveryRequest, node: Node, first_of_stream: bool, once: bool) {
        if first_of_stream || !once {
            request.node = Some(node);
        }
    }

    fn type_url(response: &DeltaDiscoveryResponse) -> &str {
        &response.type_url
    }

    fn control_plane(response: &DeltaDiscoveryResponse) -> Option<&ControlPlane> {
        response.control_plane.as_ref()
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse, map: &mut WatchMap, server: &Arc<ServerContext>) {
        let nonce = response.nonce.clone();
        let message = match duplicate(&response) {
            Some(message) => {
                map.failed(&FetchFailure::Rejected(message.clone()));
                Some(message)
            }
            None => {
                let rejected = self.apply(response, map, server);
                (!rejected.is_empty()).then(|| wire::error_detail(&map.type_url, &rejected))
            }
        };
        let error = message.map(|message| {
            tracing::warn!(type_url = map.type_url, "delta update rejected: {message}");
            Status {
                code: NACK_CODE,
                message,
                details: Vec::new(),
            }
        });
        self.acks.push_back(Ack { nonce, error });
    }

    fn expired(&mut self, names: &[String]) {
        for name in names {
            self.versions.remove(name);
        }
    }
}

impl Delta {
    fn apply(
        &mut self,
        response: DeltaDiscoveryResponse,
        map: &mut WatchMap,
        server: &Arc<ServerContext>,
    ) -> Vec<Rejected> {
        let version = response.system_version_info;
        let mut decoded = Decoded::default();
        for wrapper in response.resources {
            // What nobody asked for is not looked at.
            if map.wants(&wrapper.name) {
                wire::decode_wrapped(&map.type_url, wrapper, "", &mut decoded);
            }
        }
        // A wrapper without resource renews what is held; of anything else it says nothing.
        decoded
            .heartbeats
            .retain(|h| self.versions.get(&h.name) == Some(&h.version));
        let removed = response.removed_resources;
        let mut rejected = decoded.rejected;
        if rejected.is_empty() || !decoded.resources.is_empty() || !removed.is_empty() {
            rejected.extend(map.changes(&version, &decoded.resources, &removed, server));
        } else {
            map.failed(&FetchFailure::Rejected(wire::error_detail(&map.type_url, &rejected)));
        }
        server
            .xds
            .inventory
            .note(&map.type_url, decoded.resources.iter(), &removed, &rejected, false);
        map.set_expiry(&decoded.resources, &decoded.heartbeats);
        let refused: HashSet<&str> = rejected.iter().map(|r| r.name.as_str()).collect();
        for resource in decoded.resources {
            if !refused.contains(resource.name.as_str()) {
                self.versions.insert(resource.name, resource.version);
            }
        }
        // A name that is gone but still wanted is subscribed without a version on the next stream.
        for name in &removed {
            self.versions.remove(name);
        }
        rejected
    }
}

/// Envoy refuses the whole of a response that names a resource twice.
fn duplicate(response: &DeltaDiscoveryResponse) -> Option<String> {
    let mut seen = HashSet::new();
    for resource in &response.resources {
        if !seen.insert(resource.name.as_str()) {
            return Some(format!(
                "duplicate name {} found among added/updated resources",
                resource.name
            ));
        }
    }
    response
        .removed_resources
        .iter()
        .find(|name| !seen.insert(name.as_str()))
        .map(|name| format!("duplicate name {name} found in the union of added+removed resources"))
}
