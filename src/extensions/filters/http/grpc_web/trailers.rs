//! A gRPC response for a browser: its trailers become a last message of the body.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::text::Encoder;
use crate::http::{Body, BodyError};

/// The flag of a message that holds trailers.
const TRAILERS: u8 = 0x80;

/// A response's body with its trailers inside, as text when it was asked for.
pub(super) struct WebBody {
    inner: Body,
    text: Option<Encoder>,
}

impl WebBody {
    pub fn new(inner: Body, text: bool) -> Self {
        Self {
            inner,
            text: text.then(Encoder::default),
        }
    }
}

impl HttpBody for WebBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let frame = match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            let data = match frame.into_data() {
                Ok(data) => match &mut this.text {
                    None => data,
                    Some(encoder) => encoder.encode(&data).into(),
                },
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => {
                        let message = message(&trailers);
                        match this.text {
                            None => message.into(),
                            Some(_) => STANDARD.encode(message).into(),
                        }
                    }
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Trailers as a message: `name:value` lines.
pub(super) fn message(trailers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let mut out = vec![TRAILERS];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&lines);
    out
}
