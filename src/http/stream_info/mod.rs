//! What is known of one stream: read by access logs, formatters, filters and matchers; written by
//! the connection manager, the router and filters (Envoy's `StreamInfo`).

mod close;
mod connection;
mod filter_state;
mod findings;
mod flags;
mod inspected;
mod interrupt;
mod meter;
mod proxy;

use std::{
    borrow::Cow,
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, StatusCode, Version};
use xds_protos::{envoy::config::core::v3::Metadata as ProtoMetadata, google::protobuf::Struct};

pub use close::{DetectedClose, SideClose};
pub use connection::{Cert, CertInfo, ConnectionInfo, NETWORK_NAMESPACE, TlsInfo, UpstreamWatchers};
pub use filter_state::{FilterState, FilterStateObject, SharedObjects, Sharing, StringObject};
pub use findings::{Finding, FindingSlot, Findings};
pub use flags::{Flag, ResponseFlags};
pub use inspected::Inspected;
pub use interrupt::Interrupt;
pub use meter::{Meter, is_chunked};
pub use proxy::{ProxyData, ProxyTlvs};

use crate::{
    net::{Address, CopyProgress, OriginalSource},
    upstream::Host,
};

/// Dynamic metadata: a struct per filter name, as `%DYNAMIC_METADATA(..)%` reads it.
pub type Metadata = BTreeMap<String, Struct>;

/// Byte counts and moments that bodies write while they stream; shared with the body wrappers.
#[derive(Debug, Default)]
pub struct Progress {
    /// Request body bytes read from downstream: `%BYTES_RECEIVED%`.
    pub bytes_received: Cell<u64>,
    /// Response body bytes written downstream: `%BYTES_SENT%`.
    pub bytes_sent: Cell<u64>,
    /// Request body bytes sent upstream.
    pub upstream_bytes_sent: Cell<u64>,
    /// Response body bytes read from upstream.
    pub upstream_bytes_received: Cell<u64>,
    /// When the last byte of the request came in: `%REQUEST_DURATION%`.
    pub last_downstream_rx: Cell<Option<Instant>>,
    /// When the first byte went upstream.
    pub first_upstream_tx: Cell<Option<Instant>>,
    /// When the last byte went upstream: `%REQUEST_TX_DURATION%`.
    pub last_upstream_tx: Cell<Option<Instant>>,
    /// When the upstream's response head came: `%RESPONSE_DURATION%`.
    pub first_upstream_rx: Cell<Option<Instant>>,
    /// When the upstream's last byte came.
    pub last_upstream_rx: Cell<Option<Instant>>,
    /// When the first byte of the response went downstream.
    pub first_downstream_tx: Cell<Option<Instant>>,
    /// When the last byte of the response went downstream.
    pub last_downstream_tx: Cell<Option<Instant>>,
    /// Whether the request body was read to its end.
    pub request_complete: Cell<bool>,
    /// When the first byte of the upstream's body came.
    pub first_upstream_rx_body: Cell<Option<Instant>>,
    /// Bytes as the codecs count them.
    pub meters: Meters,
    /// Last activity in either direction: the stream idle timer reads it.
    pub last_activity: Cell<Option<Instant>>,
    /// A filter wants the connection to end with this stream.
    pub drain: Cell<bool>,
    /// The reply of a filter that no longer waits for the upstream's.
    pub interrupt: Interrupt,
}

/// Bytes of all directions as the codecs count them.
#[derive(Debug, Default)]
pub struct Meters {
    /// From the client.
    pub downstream_received: Meter,
    /// To the client.
    pub downstream_sent: Meter,
    /// From the upstream.
    pub upstream_received: Meter,
    /// To the upstream.
    pub upstream_sent: Meter,
}

/// When an upstream connection was made.
#[derive(Debug, Clone, Copy)]
pub struct ConnectTimes {
    /// The connect call.
    pub start: Instant,
    /// The connection was there.
    pub end: Instant,
    /// The end of its handshake, where there is one.
    pub handshake: Option<Instant>,
}

/// The upstream side of a stream: the last attempt's.
#[derive(Debug, Clone, Default)]
pub struct UpstreamInfo {
    /// Name of the chosen cluster: `%UPSTREAM_CLUSTER_RAW%`.
    pub cluster: Option<Arc<str>>,
    /// `alt_stat_name` or the name: `%UPSTREAM_CLUSTER%` prints it.
    pub cluster_observability_name: Option<Arc<str>>,
    /// The host picked: `%UPSTREAM_HOST%`.
    pub host: Option<Arc<Host>>,
    /// `%UPSTREAM_LOCAL_ADDRESS%`
    pub local_address: Option<Address>,
    /// `%UPSTREAM_REMOTE_ADDRESS%`
    pub remote_address: Option<Address>,
    /// Protocol spoken: `%UPSTREAM_PROTOCOL%`.
    pub protocol: Option<Version>,
    /// TLS facts of the connection.
    pub tls: Option<Arc<TlsInfo>>,
    /// `%UPSTREAM_CONNECTION_ID%`
    pub connection_id: Option<u64>,
    /// Attempts made, the first included: `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`.
    pub attempts: u32,
    /// How the connection of a proxied one ended.
    pub close: SideClose,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`
    pub transport_failure: Option<String>,
    /// When its connection was made.
    pub connect: Option<ConnectTimes>,
    /// Time from connect to established, of the connection used: `%CONNECTION_POOL_READY_DURATION%`.
    pub pool_ready: Option<Duration>,
    /// `Cluster.metadata`: `%CLUSTER_METADATA(..)%`.
    pub cluster_metadata: Option<Arc<Metadata>>,
    /// Whether `host` has given a connection: others do not count as attempted.
    pub connected: bool,
    /// Hosts that a TCP proxy tried before `host`, in order: `%UPSTREAM_HOSTS_ATTEMPTED%`. An HTTP request's attempts are
    /// each by itself, as in Envoy.
    pub earlier_hosts: Vec<Arc<Host>>,
    /// What network filters of the cluster find out about the connection: `%UPSTREAM_FILTER_STATE(..)%`. None where
    /// the cluster has no such filters.
    pub found: Option<Arc<Findings>>,
    /// Its connections before `connection_id`, in order: `%UPSTREAM_CONNECTION_IDS_ATTEMPTED%`.
    pub earlier_connections: Vec<u64>,
}

/// What is known of a proxied connection, for those beside the filter that serves it: upstream and bytes as soon as
/// there are some, the rest when it has ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// `%RESPONSE_FLAGS%`
    pub flags: ResponseFlags,
    /// Bytes and moments.
    pub progress: Rc<Progress>,
    /// The upstream side.
    pub upstream: UpstreamInfo,
    /// Bytes that were copied so far, while the connection runs.
    pub copied: Option<Rc<CopyProgress>>,
}

impl Outcome {
    /// Bytes from the client and to it, so far.
    pub fn bytes(&self) -> (u64, u64) {
        match &self.copied {
            Some(copied) => (copied.forward.get(), copied.back.get()),
            None => (self.progress.bytes_received.get(), self.progress.bytes_sent.get()),
        }
    }
}

/// The internal redirects of one request, over all the streams it has been.
#[derive(Debug, Clone, Default)]
pub struct InternalRedirects {
    /// How many were followed.
    pub count: u32,
    /// From which route to which.
    seen: Vec<(Arc<str>, Arc<str>)>,
}

impl InternalRedirects {
    /// Whether no redirect has led from this route to that one before.
    pub fn first_time(&mut self, from: &Arc<str>, to: &Arc<str>) -> bool {
        let first = !self.seen.iter().any(|(f, t)| f == from && t == to);
        if first {
            self.seen.push((from.clone(), to.clone()));
        }
        first
    }
}

/// Everything known of one stream.
#[derive(Debug)]
pub struct StreamInfo {
    /// The downstream connection.
    pub connection: Rc<ConnectionInfo>,
    /// Wall clock at the request's first byte: `%START_TIME%`.
    pub start_time: SystemTime,
    /// Monotonic clock at the same moment.
    pub start: Instant,
    /// When the stream ended; none while it runs.
    pub end: Option<Instant>,
    /// Downstream protocol: `%PROTOCOL%`; none for TCP.
    pub protocol: Option<Version>,
    /// `:method` and so on are in the head; this is `%RESPONSE_CODE%`, 0 when there was none.
    pub response_code: Option<StatusCode>,
    /// `%RESPONSE_CODE_DETAILS%`
    pub response_code_details: Option<Cow<'static, str>>,
    /// How a proxied connection ended.
    pub close: SideClose,
    /// `%CONNECTION_TERMINATION_DETAILS%`
    pub connection_termination_details: Option<Cow<'static, str>>,
    /// `%RESPONSE_FLAGS%`
    pub flags: ResponseFlags,
    /// `%ROUTE_NAME%`
    pub route_name: Option<Arc<str>>,
    /// `%VIRTUAL_CLUSTER_NAME%`
    pub virtual_cluster: Option<Arc<str>>,
    /// `x-request-id`: `%STREAM_ID%`.
    pub request_id: Option<HeaderValue>,
    /// The client's address as the connection manager trusts it (`x-forwarded-for`); none: the connection's.
    pub remote_address: Option<Address>,
    /// Where its upstream connections are to come from, by the `original_src` filter; none: as the connection says.
    pub original_source: Option<OriginalSource>,
    /// The upstream side.
    pub upstream: UpstreamInfo,
    /// Counts and moments written while bodies stream.
    pub progress: Rc<Progress>,
    /// Dynamic metadata by filter name.
    pub metadata: Metadata,
    /// Filter state of the stream's life; the connection's is in `connection`.
    pub filter_state: FilterState,
    /// Bytes of the request's head as received (an estimate where the codec does not tell).
    pub request_header_bytes: u64,
    /// Bytes of the response's head as sent (likewise).
    pub response_header_bytes: u64,
    /// Trailers of the response, once they passed.
    pub response_trailers: Option<HeaderMap>,
    /// Body given by a local reply: `%LOCAL_REPLY_BODY%`.
    pub local_reply_body: Option<bytes::Bytes>,
    /// `Route.metadata` of the chosen route.
    pub route_metadata: Option<Arc<ProtoMetadata>>,
    /// `VirtualHost.metadata` of the chosen route.
    pub virtual_host_metadata: Option<Arc<ProtoMetadata>>,
    /// Whether it was chosen to be traced, whoever it is reported to.
    pub traced: bool,
    /// `%TRACE_ID%`
    pub trace_id: Option<Arc<str>>,
    /// `%SPAN_ID%`
    pub span_id: Option<Arc<str>>,
    /// A health check by the health check filter: left out of request statistics.
    pub health_check: bool,
    /// `scheme_header_transformation.match_upstream`: `:scheme` tells how the upstream is spoken to.
    pub scheme_of_upstream: bool,
    /// How often a route was looked for, and how long that took in all.
    pub route_resolutions: (u32, Duration),
    /// Internal redirects so far.
    pub redirects: InternalRedirects,
    /// Flags that filters set, in order: `%CUSTOM_FLAGS%`.
    pub custom_flags: Vec<Arc<str>>,
    /// Which log entry is being written: `%ACCESS_LOG_TYPE%`; `NotSet` outside access logs.
    pub access_log_type: &'static str,
}

impl StreamInfo {
    /// A stream that starts now on `connection`.
    pub fn new(connection: Rc<ConnectionInfo>, protocol: Option<Version>) -> Self {
        Self {
            connection,
            start_time: now_in_micros(),
            start: Instant::now(),
            end: None,
            protocol,
            response_code: None,
            response_code_details: None,
            close: SideClose::default(),
            connection_termination_details: None,
            flags: ResponseFlags::default(),
            route_name: None,
            virtual_cluster: None,
            request_id: None,
            remote_address: None,
            original_source: None,
            upstream: UpstreamInfo::default(),
            progress: Rc::default(),
            metadata: Metadata::new(),
            filter_state: FilterState::default(),
            request_header_bytes: 0,
            response_header_bytes: 0,
            response_trailers: None,
            local_reply_body: None,
            route_metadata: None,
            virtual_host_metadata: None,
            traced: false,
            trace_id: None,
            span_id: None,
            health_check: false,
            scheme_of_upstream: false,
            route_resolutions: (0, Duration::ZERO),
            redirects: InternalRedirects::default(),
            custom_flags: Vec::new(),
            access_log_type: "NotSet",
        }
    }

    /// Takes what filters have left with the connection, for a line about the connection as a whole.
    pub fn take_outcome(&mut self) {
        let connection = self.connection.clone();
        if let Some(outcome) = connection.outcome.take() {
            self.flags = outcome.flags;
            self.progress = outcome.progress;
            self.upstream = outcome.upstream;
        }
        self.take_findings();
    }

    /// Takes what network filters have found out about the connection.
    pub fn take_findings(&mut self) {
        let connection = self.connection.clone();
        self.metadata.clone_from(&connection.metadata.borrow());
        for flag in connection.flags.get().iter() {
            self.flags.set(flag);
        }
        if let Some(details) = connection.code_details.get() {
            self.response_code_details = Some(details.into());
        }
        if let Some(details) = &*connection.termination_details.borrow() {
            self.connection_termination_details = Some(details.clone().into());
        }
    }

    /// `%DOWNSTREAM_REMOTE_ADDRESS%`: the client, as far as it can be trusted.
    pub fn remote_address(&self) -> &Address {
        self.remote_address.as_ref().unwrap_or(&self.connection.remote_address)
    }
}

/// The wall clock, whose smallest unit is Envoy's: a microsecond.
fn now_in_micros() -> SystemTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
