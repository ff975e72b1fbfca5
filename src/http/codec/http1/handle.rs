//! What a stream may ask of its connection while it is being answered.

use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::{
    CodecError, encode,
    wire::{SentHead, Shared},
};

/// A stream's hold on its connection.
#[derive(Clone)]
pub struct WireHandle(Shared);

impl WireHandle {
    pub(super) fn new(wire: Shared) -> Self {
        Self(wire)
    }

    /// What broke the request's body. The task of the connection is woken when that happens, so whoever runs
    /// on it need not be told.
    pub(in super::super) fn fault(&self) -> Option<CodecError> {
        self.0.borrow().fault()
    }

    /// The head of the response, once it is written; HTTP/2 does not tell.
    pub(in super::super) fn sent_head(&self) -> Option<SentHead> {
        self.0.borrow().sent
    }

    /// The response will say that the connection ends, and requests that cross with it are answered all the same.
    pub(in super::super) fn drain(&self) {
        self.0.borrow_mut().draining.get_or_insert_with(Instant::now);
    }

    /// Sends an informational response ahead of the one that counts.
    pub(in super::super) fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        let mut wire = self.0.borrow_mut();
        let case = wire.options().case;
        wire.inform(|out| encode::interim(out, status, headers, case));
    }
}
