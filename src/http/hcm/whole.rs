//! Whole bodies, for filters that cannot do with less.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::{BodyExt, Full};

use crate::http::{Body, BodyError};

/// Reads a body to its end, with its trailers; [`BodyError::TooLarge`] past the limit in bytes.
pub(crate) async fn read(body: Body, limit: u64) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    read_frames(body, limit, false).await
}

/// Likewise; `frame_free`: a body of one frame does not count, for it has nothing to wait for.
pub(super) async fn read_frames(
    mut body: Body,
    limit: u64,
    frame_free: bool,
) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let mut whole = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                let free = frame_free && whole.is_empty() && body.is_end_stream();
                whole.extend_from_slice(&data);
                if whole.len() as u64 > limit && !free {
                    return Err(BodyError::TooLarge { limit });
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((whole.freeze(), trailers))
}

/// A body of these bytes and trailers.
pub(crate) fn join(bytes: Bytes, trailers: Option<HeaderMap>) -> Body {
    match trailers {
        None => Body::full(bytes),
        Some(trailers) => Body::boxed(
            Full::new(bytes)
                .map_err(|never| match never {})
                .with_trailers(std::future::ready(Some(Ok(trailers)))),
        ),
    }
}
