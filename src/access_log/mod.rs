//! Access logs: filters, sinks, one writer per file.

use xds_protos::envoy::config::accesslog::v3::AccessLog as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, ResponseHead, StreamInfo},
};

/// The access logs of one listener, connection manager or proxy filter.
#[derive(Default)]
pub struct AccessLogs {}

/// What a log line is made of.
pub struct LogCx<'a> {
    /// The request's head as it was after the filters; none for TCP.
    pub request: Option<&'a RequestHead>,
    /// The response's head; none when there was none.
    pub response: Option<&'a ResponseHead>,
    /// Everything else.
    pub info: &'a StreamInfo,
}

impl AccessLogs {
    /// Builds `access_log` of a listener, HCM, router or tcp_proxy.
    pub fn build(protos: Vec<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let _ = (protos, cx);
        Ok(Self {})
    }

    /// Whether there is none, so that nothing has to be kept for it.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Writes the stream's line to every log whose filter lets it.
    pub fn log(&self, cx: &LogCx<'_>) {
        let _ = cx;
    }
}
