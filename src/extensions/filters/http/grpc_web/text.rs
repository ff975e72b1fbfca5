//! `application/grpc-web-text`: base64 of messages, each padded by itself, in any pieces.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    extensions::filters::http::grpc::Frames,
    http::{Body, BodyError},
};

/// Why a text request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadText {
    /// Its length is no multiple of four.
    Size,
    /// It has other characters.
    Data,
}

/// Decodes groups of four characters as they come.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Fewer than four characters.
    left: Vec<u8>,
}

impl Decoder {
    /// The bytes of all whole groups so far.
    pub fn decode(&mut self, data: &[u8]) -> Result<Vec<u8>, BadText> {
        self.left.extend_from_slice(data);
        let whole = self.left.len() / 4 * 4;
        let mut out = Vec::with_capacity(whole / 4 * 3);
        for group in self.left[..whole].chunks_exact(4) {
            // Group by group, because padding may stand at the end of each message.
            STANDARD.decode_vec(group, &mut out).map_err(|_| BadText::Data)?;
        }
        self.left.drain(..whole);
        Ok(out)
    }

    /// Whether the text may end here.
    pub fn finish(&self) -> Result<(), BadText> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(BadText::Size)
        }
    }
}

/// Encodes messages as they come.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    frames: Frames,
    /// Fewer than three bytes of the message that is being encoded.
    left: Vec<u8>,
}

impl Encoder {
    /// The text of all that is known; padding ends each message.
    pub fn encode(&mut self, mut data: &[u8]) -> String {
        let mut out = String::with_capacity(data.len() / 3 * 4 + 8);
        while let Some(piece) = self.frames.next(&mut data) {
            self.left.extend_from_slice(piece.bytes);
            let whole = if piece.ends {
                self.left.len()
            } else {
                self.left.len() / 3 * 3
            };
            STANDARD.encode_string(&self.left[..whole], &mut out);
            self.left.drain(..whole);
        }
        out
    }
}

/// A request's body, decoded when it is text. Its length is not told: gRPC has none. Bad text breaks it off and is
/// noted for the reply.
pub(super) struct GrpcBody {
    inner: Body,
    decoder: Option<Decoder>,
    bad: Rc<Cell<Option<BadText>>>,
}

impl GrpcBody {
    pub fn new(inner: Body, text: bool, bad: Rc<Cell<Option<BadText>>>) -> Self {
        Self {
            inner,
            decoder: text.then(Decoder::default),
            bad,
        }
    }

    fn finish(&self) -> Result<(), BadText> {
        self.decoder.as_ref().map_or(Ok(()), Decoder::finish)
    }

    fn refuse(&self, bad: BadText) -> BodyError {
        self.bad.set(Some(bad));
        BodyError::Reset("grpc-web text is no base64")
    }
}

impl HttpBody for GrpcBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let frame = match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    return Poll::Ready(match this.finish() {
                        Ok(()) => None,
                        Err(_) if this.bad.get().is_some() => None,
                        Err(bad) => Some(Err(this.refuse(bad))),
                    });
                }
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            let Some(decoder) = &mut this.decoder else {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            };
            match decoder.decode(&data) {
                Ok(decoded) if decoded.is_empty() => {}
                Ok(decoded) => return Poll::Ready(Some(Ok(Frame::data(decoded.into())))),
                Err(bad) => return Poll::Ready(Some(Err(this.refuse(bad)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && self.finish().is_ok()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
