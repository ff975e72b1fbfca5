//! The two variants of the protocol as state machines without I/O: what to ask for, what a response means.

mod delta;
mod sotw;

use std::sync::Arc;

use xds_protos::{
    envoy::config::core::v3::{ControlPlane, Node},
    prost::Message,
};

pub(super) use delta::Delta;
pub(super) use sotw::Sotw;

use super::watch_map::WatchMap;
use crate::server::ServerContext;

/// gRPC's INTERNAL, the code of every NACK Envoy sends.
const NACK_CODE: i32 = 13;

/// One type's state on a stream. The state outlives streams; what was applied is told to the next one.
pub(super) trait Protocol: Default + 'static {
    /// What is sent.
    type Request: Message + std::fmt::Debug + Default + Send + 'static;
    /// What comes.
    type Response: Message + Default + Send + 'static;

    /// There is a new stream: nothing was sent on it yet.
    fn opened(&mut self);

    /// A watch came; `first` when nobody watched its name before.
    fn watched(&mut self, name: &str, first: bool);

    /// Nobody watches this name any longer.
    fn unwatched(&mut self, name: &str);

    /// Whether there is something to send.
    fn wants_to_send(&self, map: &WatchMap) -> bool;

    /// The next request; call it only when [`Self::wants_to_send`].
    fn request(&mut self, map: &WatchMap) -> Self::Request;

    /// Puts the node into a request: into every one, or with `once` only into the first of a stream.
    fn set_node(request: &mut Self::Request, node: Node, first_of_stream: bool, once: bool);

    /// The type a response is for.
    fn type_url(response: &Self::Response) -> &str;

    /// What the control plane says of itself.
    fn control_plane(response: &Self::Response) -> Option<&ControlPlane>;

    /// Applies a response to the watches and readies its ACK or NACK.
    fn receive(&mut self, response: Self::Response, map: &mut WatchMap, server: &Arc<ServerContext>);

    /// These resources' time to live ran out.
    fn expired(&mut self, names: &[String]);
}
