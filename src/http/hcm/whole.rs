//! Whole bodies, for filters that cannot do with less.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full};

use crate::http::{Body, BodyError};

/// Reads a body to its end, with its trailers; [`BodyError::TooLarge`] past the limit in bytes.
pub(crate) async fn read(mut body: Body, limit: u64) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let mut whole = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if (whole.len() + data.len()) as u64 > limit => return Err(BodyError::TooLarge { limit }),
            Ok(data) => whole.extend_from_slice(&data),
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
