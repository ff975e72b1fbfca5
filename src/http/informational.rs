//! Informational responses (1xx) of an upstream on their way to the client.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    ResponseHead,
    codec::StreamHandle,
    hcm::{HcmConfig, count_response},
};

const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Where a stream's informational responses go.
#[derive(Clone, Default)]
pub struct Informational {
    handle: StreamHandle,
    /// None: nobody listens.
    config: Option<Arc<HcmConfig>>,
}

impl Informational {
    /// For a stream of this handle.
    pub fn new(handle: StreamHandle, config: Arc<HcmConfig>) -> Self {
        Self {
            handle,
            config: Some(config),
        }
    }

    /// The connection manager that serves the stream; none for requests of our own.
    pub fn manager(&self) -> Option<&Arc<HcmConfig>> {
        self.config.as_ref()
    }

    /// The 100 of the connection manager itself.
    pub fn go_on(&self) {
        self.inform(StatusCode::CONTINUE, &HeaderMap::new());
    }

    /// Hands one on to the client, as the connection manager changes it; only with `proxy_100_continue`, as in Envoy.
    pub fn send(&self, mut head: ResponseHead) {
        if !self.config.as_ref().is_some_and(|c| c.proxy_100_continue) {
            return;
        }
        for name in HOP_BY_HOP {
            head.headers.remove(name);
        }
        self.inform(head.status, &head.headers);
    }

    fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(config) = &self.config {
            count_response(config.stats.local(), config.listener_stats.local(), status.as_u16());
        }
        self.handle.inform(status, headers);
    }
}
