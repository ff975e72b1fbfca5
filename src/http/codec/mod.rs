//! The downstream codecs, and the only place that names hyper's connection types.
//!
//! [`serve`] finds out which protocol the client speaks, runs it, and calls a [`Handler`] for each
//! request. What hyper answers by itself (a malformed head, headers too large) is replaced on its way
//! out by what Envoy answers.

mod io;
mod reason;
mod server;
mod upgrade;

use std::{rc::Rc, time::Duration};

use super::{Body, RequestHead, ResponseHead};

pub use server::serve;
pub use upgrade::Upgrade;

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
    /// `max_request_headers_kb` in bytes; default 60 KiB.
    pub max_header_bytes: usize,
    /// `common_http_protocol_options.max_headers_count`; default 100.
    pub max_headers: usize,
    /// `common_http_protocol_options.idle_timeout`; default 1 h.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `request_headers_timeout`: from a request's first byte to the end of its head.
    pub headers_timeout: Option<Duration>,
    /// `drain_timeout`: between the announcement of a close and the close; default 5 s.
    pub drain_timeout: Duration,
    /// `common_http_protocol_options.max_requests_per_connection`
    pub max_requests: Option<u32>,
    /// `http_protocol_options.header_key_format.proper_case_words`
    pub title_case: bool,
    /// `header_key_format.stateful_formatter` preserve_case
    pub preserve_case: bool,
    /// `server` header of replies to requests that never became one; none under PASS_THROUGH.
    pub server: Option<http::HeaderValue>,
    /// HTTP/2 options.
    pub h2: H2Options,
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
    /// `hpack_table_size`
    pub header_table: Option<u32>,
    /// `allow_connect`: extended CONNECT.
    pub allow_connect: bool,
    /// `connection_keepalive`: interval and timeout.
    pub keepalive: Option<(Duration, Duration)>,
}

impl Default for H2Options {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            header_table: None,
            allow_connect: false,
            keepalive: None,
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
}

/// What serves the requests of one connection.
pub trait Handler {
    /// Answers one request. Dropping the future means that the client has gone.
    fn handle(self: Rc<Self>, request: CodecRequest) -> impl Future<Output = (ResponseHead, Body)>;

    /// A request that never became one: answered with `status` and its reason phrase; `details` as
    /// `%RESPONSE_CODE_DETAILS%` prints it. The reply is written already; this is for counting and logging.
    fn protocol_error(&self, status: http::StatusCode, details: &'static str);

    /// Bytes read and written since the last call.
    fn count_bytes(&self, read: u64, written: u64);

    /// The protocol is known now.
    fn protocol(&self, version: http::Version);

    /// The connection is about to end for this reason.
    fn closing(&self, reason: CloseReason);

    /// Streams that are open now.
    fn active_streams(&self) -> u32;

    /// When the last stream ended, or the connection started.
    fn idle_since(&self) -> std::time::Instant;
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
    /// The peer closed or reset the connection.
    Remote,
}
