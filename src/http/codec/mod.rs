//! The downstream codecs: HTTP/1 is our own, HTTP/2 runs on the h2 library, whose connection is named only here and
//! in the upstream pool.
//!
//! [`serve`] finds out which protocol the client speaks, runs it, and calls a [`Handler`] for each
//! request.

mod case;
mod date;
mod detect;
mod handle;
mod http1;
pub(crate) mod http2;
mod reason;
mod upgrade;

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{Body, RequestHead, ResponseHead};
use crate::{
    matching::StringMatcher,
    server::overload::{ScaledTimer, streams::Account},
    stats::Stats,
};

pub use case::HeaderCase;
pub(crate) use date::value as date_value;
pub use detect::serve;
pub use handle::StreamHandle;
pub(crate) use http1::client;
pub use http1::{CodecError, Http1CodecStats, RequestBody};
pub use http2::{FloodLimits, Http2Body, Http2CodecStats, Keepalive, Reset};
pub use upgrade::{TunnelEnd, TunnelState, Upgrade};

/// `HttpConnectionManager.codec_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecType {
    /// ALPN decides, else the first bytes.
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only; in plain text by prior knowledge.
    Http2,
}

/// Limits and timers of a downstream connection, from HCM and its protocol options.
#[derive(Debug, Clone)]
pub struct CodecOptions {
    /// `codec_type`
    pub codec: CodecType,
    /// What HTTP/1 messages may hold; HTTP/2 has the limits of it.
    pub h1: H1Options,
    /// `common_http_protocol_options.idle_timeout`; default 1 h.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `http1_safe_max_connection_duration`
    pub safe_max_duration: bool,
    /// `request_headers_timeout`: from a request's first byte to the end of its head.
    pub headers_timeout: Option<Duration>,
    /// `drain_timeout`: between the announcement of a close and the close; default 5 s.
    pub drain_timeout: Duration,
    /// `common_http_protocol_options.max_requests_per_connection`
    pub max_requests: Option<u32>,
    /// `delayed_close_timeout`: how long a client that may still be sending has to read the last response; default
    /// 1 s, none when 0.
    pub delayed_close: Option<Duration>,
    /// `stream_idle_timeout`: how long a client may leave a head unfinished; default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// `stream_flush_timeout`: how long a client may not read; default `stream_idle_timeout`.
    pub flush_timeout: Option<Duration>,
    /// HTTP/2 options.
    pub h2: H2Options,
}

/// `Http1ProtocolOptions` of a downstream connection, and the limits of its messages.
#[derive(Debug, Clone)]
pub struct H1Options {
    /// `max_request_headers_kb` in bytes, of a head and of trailers; default 60 KiB.
    pub max_header_bytes: usize,
    /// `common_http_protocol_options.max_headers_count`; default 100.
    pub max_headers: usize,
    /// `common_http_protocol_options.headers_with_underscores_action`
    pub underscores: Underscores,
    /// `accept_http_10`
    pub accept_http_10: bool,
    /// `allow_absolute_url`; default true. Off, an absolute target is taken for a path.
    pub absolute_urls: bool,
    /// Whether clients come without a proxy in front, so that an `https` target over plain text is a lie.
    pub checks_scheme: bool,
    /// `allow_custom_methods`
    pub custom_methods: bool,
    /// `enable_trailers`: off, they are read and dropped.
    pub enable_trailers: bool,
    /// `header_key_format`
    pub case: HeaderCase,
    /// `allow_chunked_length`: of two lengths of a body `chunked` counts, and the other is dropped.
    pub allow_chunked_length: bool,
    /// `ignore_http_11_upgrade`: upgrades that are taken for not asked for.
    pub ignored_upgrades: Arc<[StringMatcher]>,
}

impl Default for H1Options {
    fn default() -> Self {
        Self {
            max_header_bytes: 60 * 1024,
            max_headers: 100,
            underscores: Underscores::Allow,
            accept_http_10: false,
            absolute_urls: true,
            checks_scheme: false,
            custom_methods: false,
            enable_trailers: false,
            case: HeaderCase::Lower,
            allow_chunked_length: false,
            ignored_upgrades: Arc::default(),
        }
    }
}

/// `headers_with_underscores_action`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underscores {
    /// They are headers like others.
    Allow,
    /// The request is refused.
    Reject,
    /// They are left out.
    Drop,
}

/// `Http2ProtocolOptions` of a downstream connection.
#[derive(Debug, Clone)]
pub struct H2Options {
    /// `max_concurrent_streams`; default 1024.
    pub max_streams: u32,
    /// `initial_stream_window_size`; default here 256 KiB, so that an idle connection stays small.
    pub stream_window: u32,
    /// `initial_connection_window_size`; default here 1 MiB.
    pub connection_window: u32,
    /// `hpack_table_size`; default 4096.
    pub header_table: u32,
    /// `allow_connect`: extended CONNECT.
    pub allow_connect: bool,
    /// `connection_keepalive`
    pub keepalive: Option<Keepalive>,
    /// What a client may send that carries nothing.
    pub floods: FloodLimits,
    /// `override_stream_error_on_invalid_http_message`: a broken message ends its stream only.
    pub stream_errors: bool,
}

impl Default for H2Options {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            header_table: 4096,
            allow_connect: false,
            keepalive: None,
            floods: FloodLimits::default(),
            stream_errors: false,
        }
    }
}

/// A request as the codec hands it over.
pub struct CodecRequest {
    /// Its head.
    pub head: RequestHead,
    /// Its body; `Empty` when the head was all.
    pub body: Body,
    /// The connection's bytes after a 101 or a CONNECT that was accepted.
    pub upgrade: Option<Upgrade>,
    /// How many bytes of head were read, as far as the codec can tell.
    pub header_bytes: u64,
    /// The scheme is the client's own word, not guessed from TLS.
    pub scheme_given: bool,
    /// What the stream may ask of its connection.
    pub handle: StreamHandle,
}

/// What serves the requests of one connection.
pub trait Handler {
    /// Answers one request. Dropping the future means that the client has gone.
    fn handle(self: Rc<Self>, request: CodecRequest) -> impl Future<Output = (ResponseHead, Body)>;

    /// Answers what never became a request.
    fn refuse(self: Rc<Self>, error: CodecError) -> impl Future<Output = (ResponseHead, Body)>;

    /// The client went away in the middle of a request's head.
    fn head_cut(self: Rc<Self>);

    /// A stream was reset before it became a request.
    fn stream_refused(self: Rc<Self>, reset: Reset);

    /// `http2.*`
    fn http2_stats(&self) -> Stats<Http2CodecStats>;

    /// So many headers or trailers of HTTP/1 were left out because of underscores.
    fn headers_dropped(&self, count: u32);

    /// Bytes read and written since the last call.
    fn count_bytes(&self, read: u64, written: u64);

    /// The protocol is known now.
    fn protocol(&self, version: http::Version);

    /// The connection is about to end for this reason.
    fn closing(&self, reason: CloseReason);

    /// Whether [`may_begin`](Self::may_begin) is to be asked once the first bytes are there.
    fn asks_first(&self) -> bool {
        false
    }

    /// Whether a connection whose first bytes are there may go on.
    fn may_begin(&self) -> bool {
        true
    }

    /// Bytes of a request have come: what becomes of them.
    fn dispatched(&self) -> Dispatch {
        Dispatch::Serve
    }

    /// What a timer comes to now, which is less than it is configured for under overload. Whoever waits is woken when
    /// that changes.
    fn scaled(&self, _timer: ScaledTimer, full: Duration) -> Duration {
        full
    }

    /// Where a new stream tells how much it holds, if somebody asks.
    fn account(&self) -> Option<Rc<Account>> {
        None
    }

    /// The connection begins to end because of a drain, though nothing happens on it.
    fn drain_started(&self);

    /// Streams that are open now.
    fn active_streams(&self) -> u32;

    /// When the last stream ended, or the connection started.
    fn idle_since(&self) -> std::time::Instant;
}

/// What becomes of bytes that have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// They are served.
    Serve,
    /// The request is refused: [`CodecError::Overload`].
    Refuse,
    /// They are served, and the client is told to go (HTTP/2).
    GoAway,
    /// The connection ends at once.
    Close,
}

/// Why the codec ends a connection by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// `idle_timeout`
    Idle,
    /// `max_connection_duration`
    MaxDuration,
    /// A drain.
    Drain,
    /// The peer broke the protocol.
    ProtocolError,
    /// The last response said so.
    Local,
    /// A client that had its last response did not close within `delayed_close_timeout`.
    DelayedClose,
    /// The peer closed or reset the connection.
    Remote,
}
