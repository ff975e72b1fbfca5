//! Informational responses (1xx) of an upstream on their way to the client.

use http::{HeaderName, HeaderValue, header};

use super::{ResponseHead, codec::StreamHandle};

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
    /// `proxy_100_continue`: without it none goes on, as in Envoy.
    proxied: bool,
    /// `via`
    via: Option<HeaderValue>,
}

impl Informational {
    /// For a stream of this handle.
    pub fn new(handle: StreamHandle, proxied: bool, via: Option<HeaderValue>) -> Self {
        Self { handle, proxied, via }
    }

    /// Hands one on to the client, as the connection manager changes it.
    pub fn send(&self, mut head: ResponseHead) {
        if !self.proxied {
            return;
        }
        for name in HOP_BY_HOP {
            head.headers.remove(name);
        }
        if let Some(via) = &self.via {
            head.headers.append(header::VIA, via.clone());
        }
        self.handle.inform(head.status, &head.headers);
    }
}
