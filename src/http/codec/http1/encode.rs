//! A response's head on the wire, and how the end of its body is told: as Envoy's codec decides.

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::http::{
    ResponseHead, Spelling,
    codec::{HeaderCase, date, reason},
};

/// How the names of one message are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Case<'a> {
    Lower,
    ProperWords,
    /// As the other side spelled them.
    Spelled(&'a Spelling),
}

impl<'a> Case<'a> {
    /// What the message itself says comes first.
    pub(super) fn of(spelling: Option<&'a Spelling>, configured: HeaderCase) -> Self {
        match (spelling, configured) {
            (Some(spelling), _) => Self::Spelled(spelling),
            (None, HeaderCase::ProperWords) => Self::ProperWords,
            (None, HeaderCase::Lower | HeaderCase::Preserved { .. }) => Self::Lower,
        }
    }
}

/// What the request says about its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// HTTP/1.0
    pub(super) http_10: bool,
    /// HEAD
    pub(super) head: bool,
    /// CONNECT
    pub(super) connect: bool,
}

impl Asked {
    /// A request that nothing is known of.
    pub(super) const UNKNOWN: Self = Self {
        http_10: false,
        head: false,
        connect: false,
    };
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, whatever the headers say.
    Bodiless,
    /// `content-length`
    Length(u64),
    Chunked,
    /// Until the connection closes.
    UntilClose,
}

/// Writes a head; returns how the body is to be written, and whether the connection ends with it. `end`: no body
/// follows. `close`: this response is the connection's last; none: that is of no concern, as for a tunnel.
pub(super) fn head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    asked: Asked,
    end: bool,
    close: Option<bool>,
    configured: HeaderCase,
) -> (Framing, Option<bool>) {
    let status = head.status;
    let spelling = head.spelling.as_deref();
    let case = Case::of(spelling, configured);
    status_line(out, status, asked, spelling.and_then(|s| s.reason.as_deref()));
    let (mut length, mut date, mut connection) = (None, false, false);
    for (name, value) in &head.headers {
        if *name == header::CONTENT_LENGTH {
            length = value.to_str().ok().and_then(|v| v.trim().parse().ok());
        } else if *name == header::DATE {
            date = true;
        } else if *name == header::CONNECTION {
            connection = true;
        }
        field(out, name, value.as_bytes(), case);
    }
    if !date {
        date::with(|date| field(out, &header::DATE, date, case));
    }
    let framing = framing(status, asked, end, length);
    let close = close.map(|close| close || framing == Framing::UntilClose);
    match close {
        // What follows an accepted CONNECT is no HTTP any more.
        _ if asked.connect && status.is_success() => {}
        Some(true) if !connection => field(out, &header::CONNECTION, b"close", case),
        Some(false) if !connection && asked.http_10 => field(out, &header::CONNECTION, b"keep-alive", case),
        _ => {}
    }
    match framing {
        Framing::Length(0) if length.is_none() => field(out, &header::CONTENT_LENGTH, b"0", case),
        Framing::Chunked => field(out, &header::TRANSFER_ENCODING, b"chunked", case),
        // What a GET would have had.
        Framing::Bodiless if asked.head && length.is_none() && !is_bodiless(status) && !asked.http_10 => {
            field(out, &header::TRANSFER_ENCODING, b"chunked", case);
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    (framing, close)
}

/// Writes an informational response.
pub(super) fn interim(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, configured: HeaderCase) {
    status_line(out, status, Asked::UNKNOWN, None);
    for (name, value) in headers {
        field(out, name, value.as_bytes(), Case::of(None, configured));
    }
    out.extend_from_slice(b"\r\n");
}

fn framing(status: StatusCode, asked: Asked, end: bool, length: Option<u64>) -> Framing {
    if is_bodiless(status) || asked.head {
        return Framing::Bodiless;
    }
    if asked.connect && status.is_success() {
        // What follows are the bytes of a tunnel, whatever the headers say.
        return Framing::UntilClose;
    }
    match length {
        Some(length) => Framing::Length(length),
        None if end => Framing::Length(0),
        None if asked.http_10 => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status.as_u16(), 204 | 304)
}

fn status_line(out: &mut Vec<u8>, status: StatusCode, asked: Asked, said: Option<&[u8]>) {
    out.extend_from_slice(if asked.http_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(said.unwrap_or_else(|| reason::phrase(status).as_bytes()));
    out.extend_from_slice(b"\r\n");
}

/// One header line, its name in this case.
pub(super) fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8], case: Case<'_>) {
    let name = name.as_str().as_bytes();
    match case {
        Case::Lower => out.extend_from_slice(name),
        Case::ProperWords => proper_words(out, name),
        Case::Spelled(spelling) => match spelling.find(name) {
            Some(name) => out.extend_from_slice(name),
            None if spelling.proper_others => proper_words(out, name),
            None => out.extend_from_slice(name),
        },
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn proper_words(out: &mut Vec<u8>, name: &[u8]) {
    let mut start = true;
    out.extend(name.iter().map(|b| {
        let b = if start { b.to_ascii_uppercase() } else { *b };
        start = !b.is_ascii_alphanumeric();
        b
    }));
}

/// The line before a chunk of so many bytes.
pub(super) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for i in (0..digits).rev() {
        let digit = (size >> (4 * i)) & 15;
        out.push(b"0123456789abcdef".get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body, with its trailers.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(out, name, value.as_bytes(), Case::Lower);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
