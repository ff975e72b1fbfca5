//! Bodies that the service gets whole.

use std::mem;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;

use super::session::Stop;
use crate::http::{Body, BodyError, LocalReply};

/// Bytes of a body that are kept for the service: Envoy's default of a connection's buffer.
pub(super) const BUFFER_LIMIT: usize = 1024 * 1024;

/// A body that was read, as far as it may be.
pub(super) struct Whole {
    pub bytes: Bytes,
    pub trailers: Option<HeaderMap>,
    /// What is too much, where that goes on unseen.
    pub rest: Option<Body>,
}

impl Whole {
    /// Reads up to `limit` bytes and forgets them; what is left if there is more.
    pub async fn skim(mut body: Body, limit: usize) -> Option<Body> {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > limit {
                return Some(body);
            }
        }
        None
    }

    pub async fn read(body: &mut Body, request: bool, partial: bool) -> Result<Self, Stop> {
        let (mut bytes, mut trailers) = (BytesMut::new(), None);
        let mut inner = mem::take(body);
        while let Some(frame) = inner.frame().await {
            match frame.map_err(|error| unreadable(request, &error))?.into_data() {
                Ok(data) => {
                    bytes.extend_from_slice(&data);
                    if bytes.len() > BUFFER_LIMIT {
                        let limit = BUFFER_LIMIT as u64;
                        return match partial {
                            true => Ok(Self {
                                bytes: bytes.freeze(),
                                trailers: None,
                                rest: Some(inner),
                            }),
                            false => Err(unreadable(request, &BodyError::TooLarge { limit })),
                        };
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        Ok(Self {
            bytes: bytes.freeze(),
            trailers,
            rest: None,
        })
    }
}

/// A body whose length the headers do not tell.
pub(super) fn unsized_body(bytes: Bytes) -> Body {
    let frames = (!bytes.is_empty()).then(|| Ok(http_body::Frame::data(bytes)));
    Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
}

/// Reads what is left of a message that was replaced, so that its connection can be used again.
pub(super) fn drain(body: Body) {
    if !matches!(body, Body::Empty) {
        tokio::task::spawn_local(async move {
            let mut body = Whole::skim(body, BUFFER_LIMIT).await;
            drop(body.take());
        });
    }
}

pub(super) fn unreadable(request: bool, error: &BodyError) -> Stop {
    let (status, text, details) = match (request, error) {
        (true, BodyError::TooLarge { .. }) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            "request_payload_too_large",
        ),
        (true, _) => (StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error"),
        (false, _) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal Server Error",
            "response_payload_too_large",
        ),
    };
    Stop::Reply(Box::new(LocalReply::new(status, text, details)))
}
