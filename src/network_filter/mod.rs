//! Network filters: what handles a connection after its transport socket.

pub mod hold;

use std::{rc::Rc, sync::Arc, time::Instant};

use futures_util::future::LocalBoxFuture;
use xds_protos::prost::{Message, Name};

use crate::{
    config::{BuildCx, ConfigResult},
    http::{ConnectionInfo, Flag},
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
    /// What filters keep watching while a later one serves the connection; the end of one closes it. Empty for chains
    /// of a terminal filter alone, which then cost nothing more.
    pub guards: Vec<LocalBoxFuture<'static, ()>>,
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

/// What a [`GateFilter`] says of a connection.
pub enum Gated {
    /// On to the next filter.
    Pass(Connection),
    /// It is closed. What it was, and a flag, is told to the terminal filter, which may have to log it.
    Closed(Rc<ConnectionInfo>, Option<Flag>),
}

/// A filter that passes a connection on, changed or not, or ends it.
///
/// It is asked when the connection is new. One that has to see the first bytes, or every read, wraps the stream
/// ([`hold`](hold::hold)) and leaves a guard in [`Connection::guards`]: filters behind it may still speak first.
pub trait GateFilter: Send + Sync {
    /// Decides on a new connection.
    fn on_connection(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, Gated>;
}

/// A filter that serves a connection until it ends.
pub trait TerminalFilter: Send + Sync {
    /// Serves `connection`; dropping the future aborts it.
    fn serve(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, ()>;

    /// A filter before this one closed the connection.
    fn refused(&self, _info: &Rc<ConnectionInfo>, _flag: Option<Flag>) {}

    /// The connection ended in its transport socket's handshake, `since` when it was there for this filter to count.
    fn not_secured(&self, _since: Instant) {}
}
