//! State of the world: every request says all names, every response is the whole answer.

use std::{mem, sync::Arc};

use xds_protos::{
    envoy::{
        config::core::v3::{ControlPlane, Node},
        service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    },
    google::rpc::Status,
};

use super::{NACK_CODE, Protocol};
use crate::{
    server::ServerContext,
    xds::{
        handler::FetchFailure,
        watch_map::{WILDCARD, WatchMap},
        wire,
    },
};

/// One type's state.
#[derive(Debug, Default)]
pub(in crate::xds) struct Sotw {
    // Of the last response accepted; kept over streams.
    version: String,
    // Of the last response on this stream.
    nonce: String,
    error: Option<Status>,
    pending: bool,
    // Whether this stream has heard of the type: only then must it hear that nobody watches it any more.
    asked: bool,
}

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn opened(&mut self) {
        self.nonce.clear();
        self.error = None;
        self.asked = false;
        self.pending = true;
    }

    fn watched(&mut self, _name: &str, _first: bool) {
        // Also for a name that is watched already: Envoy asks again for each watch.
        self.pending = true;
    }

    fn unwatched(&mut self, _name: &str) {
        self.pending = true;
    }

    fn wants_to_send(&self, map: &WatchMap) -> bool {
        self.pending && (self.asked || !map.is_empty())
    }

    fn request(&mut self, map: &WatchMap) -> DiscoveryRequest {
        self.pending = false;
        self.asked = true;
        let names: Vec<String> = map.names().map(str::to_owned).collect();
        DiscoveryRequest {
            version_info: self.version.clone(),
            // Only the wildcard: no names, which every server understands.
            resource_names: if names == [WILDCARD] { Vec::new() } else { names },
            type_url: map.type_url.clone(),
            response_nonce: self.nonce.clone(),
            error_detail: mem::take(&mut self.error),
            ..DiscoveryRequest::default()
        }
    }

    fn set_node(request: &mut DiscoveryRequest, node: Node, first_of_stream: bool, once: bool) {
        if first_of_stream || !once {
            request.node = Some(node);
        }
    }

    fn type_url(response: &DiscoveryResponse) -> &str {
        &response.type_url
    }

    fn control_plane(response: &DiscoveryResponse) -> Option<&ControlPlane> {
        response.control_plane.as_ref()
    }

    fn receive(&mut self, response: DiscoveryResponse, map: &mut WatchMap, server: &Arc<ServerContext>) {
        self.nonce = response.nonce;
        if map.is_empty() {
            // The answer to the last unsubscription: nothing to say. Resources nobody asked for are not accepted.
            if response.resources.is_empty() {
                self.version = response.version_info;
            } else {
                self.pending = true;
            }
            return;
        }
        self.pending = true;
        let version = response.version_info;
        let decoded = wire::decode_all(&map.type_url, response.resources, &version);
        let mut rejected = decoded.rejected;
        let complete = rejected.is_empty();
        map.set_expiry(&decoded.resources, &decoded.heartbeats);
        if complete || !decoded.resources.is_empty() {
            rejected.extend(map.state_of_the_world(&version, &decoded.resources, complete, server));
        } else {
            map.failed(&FetchFailure::Rejected(wire::error_detail(&map.type_url, &rejected)));
        }
        let wanted = decoded.resources.iter().filter(|r| map.wants(&r.name));
        server
            .xds
            .inventory
            .note(&map.type_url, wanted, &[], &rejected, map.wants(WILDCARD));
        if rejected.is_empty() {
            self.version = version;
        } else {
            let message = wire::error_detail(&map.type_url, &rejected);
            tracing::warn!(type_url = map.type_url, version, "update rejected: {message}");
            self.error = Some(Status {
                code: NACK_CODE,
                message,
                details: Vec::new(),
            });
        }
    }

    fn expired(&mut self, _names: &[String]) {}
}
