//! Access logs: a filter decides, a format writes, a sink keeps.
//!
//! Lines go into a buffer of the worker; one thread per process writes the buffers out, so that no
//! request ever waits for a disk.

mod config;
mod file;
mod filter;

pub use config::AccessLogs;
pub use file::LogFiles;
pub use filter::LogFilter;

use crate::http::{RequestHead, ResponseHead, StreamInfo};

/// What a log line is made of.
pub struct LogCx<'a> {
    /// The request's head as it was after the filters; none for TCP.
    pub request: Option<&'a RequestHead>,
    /// The response's head; none when there was none.
    pub response: Option<&'a ResponseHead>,
    /// Everything else.
    pub info: &'a StreamInfo,
}
