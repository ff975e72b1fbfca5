//! A response's head: what Envoy's parser takes, and what it says about the body and the connection.

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, Version, header};
use memchr::memchr;

use super::{Asked, ClientOptions};
use crate::http::{
    ResponseHead,
    codec::{
        HeaderCase,
        http1::{
            CodecError,
            head::{self, Fields, Length},
        },
    },
};

/// A head, read.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) head: ResponseHead,
    pub(super) length: Length,
    /// The upstream takes another request afterwards.
    pub(super) keep_alive: bool,
    /// The upstream says that it closes.
    pub(super) closes: bool,
}

/// Looks at the start of a head whose end is still to come: what cannot become a response is not waited for.
pub(super) fn check_start(buffer: &[u8], options: &ClientOptions) -> Result<(), CodecError> {
    if buffer.len() > options.limits.max_header_bytes {
        return Err(CodecError::HeadersTooLarge);
    }
    let common = buffer.len().min(5);
    match buffer.get(..common) == b"HTTP/".get(..common) {
        true => Ok(()),
        false => Err(CodecError::Syntax),
    }
}

/// Reads a head. `block` ends with its empty line.
pub(super) fn parse(block: &Bytes, asked: Asked, options: &ClientOptions) -> Result<Response, CodecError> {
    if block.len() > options.limits.max_header_bytes {
        return Err(CodecError::HeadersTooLarge);
    }
    let lf = memchr(b'\n', block).ok_or(CodecError::Syntax)?;
    let line = block.get(..lf).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (version, status, reason) = status_line(line)?;

    let mut fields = Fields::read(block, lf + 1, &options.limits)?;
    let informational = status.is_informational();
    let chunked = fields.encodings > 0;
    if chunked {
        if !fields.chunked || fields.encodings > 1 {
            return Err(CodecError::TransferEncoding);
        }
        // A body where there can be none.
        if informational || status == StatusCode::NO_CONTENT {
            return Err(CodecError::BodyDisallowed);
        }
        if fields.content_length.is_some() {
            if !options.limits.allow_chunked_length {
                return Err(CodecError::LengthAndChunked);
            }
            fields.headers.remove(header::CONTENT_LENGTH);
            fields.content_length = None;
        }
    }
    if informational || status == StatusCode::NO_CONTENT {
        if fields.content_length.is_some_and(|n| n > 0) {
            return Err(CodecError::BodyDisallowed);
        }
        fields.headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(host) = fields.host.take() {
        fields.headers.append(header::HOST, host);
    }
    // After a 101 that nobody asked for the upstream speaks who knows what.
    let closes = !head::keeps_alive(version, &fields.headers);
    let keep_alive = status != StatusCode::SWITCHING_PROTOCOLS && !closes;
    let switches = status == StatusCode::SWITCHING_PROTOCOLS && asked.upgrade && head::is_upgrade(&fields.headers);
    let tunnel = switches || asked.connect && status.is_success();
    let length = if tunnel {
        Length::Upgrade
    } else if asked.head || informational || matches!(status.as_u16(), 204 | 304) {
        Length::None
    } else if chunked {
        Length::Chunked
    } else {
        match fields.content_length {
            Some(0) => Length::None,
            Some(n) => Length::Exact(n),
            None => Length::UntilClose,
        }
    };
    let mut spelling = fields.spelling;
    if let (Some(spelling), HeaderCase::Preserved { reason: true, .. }) = (&mut spelling, options.limits.case) {
        spelling.reason = Some(block.slice_ref(reason));
    }
    Ok(Response {
        head: ResponseHead {
            status,
            version,
            headers: fields.headers,
            spelling: spelling.map(Arc::new),
        },
        length,
        keep_alive,
        closes,
    })
}

fn status_line(line: &[u8]) -> Result<(Version, StatusCode, &[u8]), CodecError> {
    if line.iter().any(|b| head::is_control(*b)) {
        return Err(CodecError::InvalidCharacters);
    }
    let (version, rest) = line.split_at_checked(8).ok_or(CodecError::Syntax)?;
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        // Whatever it says it speaks, it is taken for the least.
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Version::HTTP_10,
        _ => return Err(CodecError::Syntax),
    };
    let code = rest.trim_ascii_start();
    if code.len() == rest.len() {
        return Err(CodecError::Syntax);
    }
    let (code, reason) = code.split_at_checked(3).ok_or(CodecError::Syntax)?;
    let status = StatusCode::from_bytes(code).map_err(|_| CodecError::Syntax)?;
    let reason = match reason {
        [] => reason,
        [b' ' | b'\t', reason @ ..] => reason,
        _ => return Err(CodecError::Syntax),
    };
    Ok((version, status, reason))
}
