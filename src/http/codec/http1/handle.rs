//! What a stream may ask of its connection while it is being answered.

use http::{HeaderMap, StatusCode};

use super::{CodecError, encode, wire::Shared};

/// A stream's hold on its connection. HTTP/2 streams have one that does nothing.
#[derive(Clone, Default)]
pub struct StreamHandle(Option<Shared>);

impl StreamHandle {
    pub(super) fn new(wire: Shared) -> Self {
        Self(Some(wire))
    }

    /// What broke the request's body. The task of the connection is woken when that happens, so whoever runs
    /// on it need not be told.
    pub fn fault(&self) -> Option<CodecError> {
        self.0.as_ref().and_then(|wire| wire.borrow().fault())
    }

    /// Sends an informational response ahead of the one that counts.
    pub fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        if let Some(wire) = &self.0 {
            let mut wire = wire.borrow_mut();
            let options = *wire.options();
            wire.inform(|out| encode::interim(out, status, headers, &options));
        }
    }
}
