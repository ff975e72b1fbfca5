//! Access logs: a filter decides, a format writes, a sink keeps.
//!
//! Lines go into a buffer of the worker; one thread per process writes the buffers out, so that no
//! request ever waits for a disk.

mod config;
mod file;
mod filter;

pub use config::AccessLogs;
pub use file::{LogFile, LogFiles};
pub use filter::LogFilter;

use std::sync::Arc;

use xds_protos::prost::{Message, Name};

use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, ResponseHead, StreamInfo},
};

/// What a log line is made of.
pub struct LogCx<'a> {
    /// The request's head as it was after the filters; none for TCP.
    pub request: Option<&'a RequestHead>,
    /// The response's head; none when there was none.
    pub response: Option<&'a ResponseHead>,
    /// Everything else.
    pub info: &'a StreamInfo,
}

/// A log that is not a file; called on the worker of the stream, so it must not wait.
pub trait AccessLogger: Send + Sync {
    /// Takes note of a stream that the filter let pass.
    fn log(&self, cx: &LogCx<'_>);
}

/// What an author of an access logger writes; a blanket impl erases it for the registry.
pub trait AccessLoggerFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.access_loggers.http_grpc`.
    const NAME: &'static str;
    /// The logger's configuration message.
    type Proto: Message + Name + Default;
    /// Builds a logger.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn AccessLogger>>;
}
