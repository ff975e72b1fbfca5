//! Network filters: what handles a connection after its transport socket.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::prost::{Message, Name};

use crate::{
    config::{BuildCx, ConfigResult},
    http::ConnectionInfo,
    listener::ListenerConfig,
    net::Stream,
    server::{Drain, Worker},
};

/// A connection that has passed listener filters, chain match and transport socket.
pub struct Connection {
    /// Its bytes.
    pub stream: Stream,
    /// Its facts.
    pub info: Rc<ConnectionInfo>,
    /// The listener it came in by, as it was configured then.
    pub listener: Arc<ListenerConfig>,
    /// Tells when the listener, the chain or the server wants it gone.
    pub drain: Drain,
}

/// What a network filter extension is, typed for its author.
pub trait NetworkFilterFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.filters.network.tcp_proxy`.
    const NAME: &'static str;
    /// The filter's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the configuration that all connections of a chain share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter>;
}

/// A built network filter.
#[derive(Clone)]
pub enum NetworkFilter {
    /// Looks at the connection and lets it pass or not; the stream goes on to the next filter.
    Gate(Arc<dyn GateFilter>),
    /// Takes the connection over; must stand last.
    Terminal(Arc<dyn TerminalFilter>),
}

/// A filter that passes a connection on, changed or not, or ends it.
pub trait GateFilter: Send + Sync {
    /// The connection goes on to the next filter; none closes it.
    fn on_connection(
        self: Arc<Self>,
        worker: Rc<Worker>,
        connection: Connection,
    ) -> LocalBoxFuture<'static, Option<Connection>>;
}

/// A filter that serves a connection until it ends.
pub trait TerminalFilter: Send + Sync {
    /// Serves `connection`; dropping the future aborts it.
    fn serve(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, ()>;
}
