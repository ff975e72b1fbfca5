//! A request's head: its lines, what they may hold, and what they say about the connection and the body.
//!
//! The checks are Envoy's, in its order. A head is taken apart without copying: values are slices of its bytes.

use std::{cell::RefCell, ops::Range, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use memchr::memchr;

use super::{CodecError, nominated, target};
use crate::http::{
    RequestHead, Scheme, Spelling,
    codec::{H1Options, HeaderCase, Underscores},
    inline_headers,
};

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none.
    None,
    /// `content-length`, more than 0.
    Exact(u64),
    /// `transfer-encoding: chunked`
    Chunked,
    /// A response's, which ends with the connection.
    UntilClose,
    /// What follows belongs to an upgrade or to CONNECT.
    Upgrade,
}

/// A head, read.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: RequestHead,
    pub(super) length: Length,
    /// The client means to send another request.
    pub(super) keep_alive: bool,
    /// The target was absolute: the scheme is the client's.
    pub(super) scheme_given: bool,
    /// How many headers were left out because of underscores.
    pub(super) dropped: u32,
}

/// Where the block of lines at the start of `buffer` ends: after its first empty line. `searched` remembers how
/// far an earlier call got.
pub(super) fn find_end(buffer: &[u8], searched: &mut usize) -> Option<usize> {
    let mut from = *searched;
    while let Some(found) = buffer.get(from..).and_then(|rest| memchr(b'\n', rest)) {
        let lf = from + found;
        match buffer.get(lf + 1..).unwrap_or_default() {
            [b'\n', ..] => return Some(lf + 2),
            [b'\r', b'\n', ..] => return Some(lf + 3),
            [] | [b'\r'] => {
                *searched = lf;
                return None;
            }
            _ => from = lf + 1,
        }
    }
    *searched = buffer.len();
    None
}

/// Looks at the start of a head whose end is still to come: what cannot become a request is not waited for. Where it
/// ends all the same, for HTTP/0.9 has no more than its first line.
pub(super) fn check_start(buffer: &[u8], options: &H1Options) -> Result<Option<usize>, CodecError> {
    if buffer.len() > options.max_header_bytes {
        return Err(CodecError::HeadersTooLarge);
    }
    if !buffer.first().is_none_or(|&b| is_token(b)) {
        return Err(CodecError::Syntax);
    }
    let Some(lf) = memchr(b'\n', buffer) else {
        return Ok(None);
    };
    let line = RequestLine::read(buffer.get(..lf).unwrap_or_default(), options)?;
    Ok((line.version == Some(Version::HTTP_09)).then_some(lf + 1))
}

/// Reads a head. `block` ends with its empty line.
pub(super) fn parse(block: &Bytes, scheme: Scheme, options: &H1Options) -> Result<Head, CodecError> {
    if block.len() > options.max_header_bytes {
        return Err(CodecError::HeadersTooLarge);
    }
    let lf = memchr(b'\n', block).ok_or(CodecError::Syntax)?;
    let line = RequestLine::read(block.get(..lf).unwrap_or_default(), options)?;
    let method = method(block.get(line.method).unwrap_or_default(), options)?;
    let target = block.slice(line.target);
    target::check(&target, method == Method::CONNECT)?;

    let mut fields = match line.version {
        Some(Version::HTTP_09) => Fields::none(options),
        _ => Fields::read(block, lf + 1, options)?,
    };
    let headers = &mut fields.headers;
    let mut upgrade = is_upgrade(headers);
    if upgrade
        && headers
            .get(header::UPGRADE)
            .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"h2c"))
    {
        nominated::remove_h2c(headers);
        upgrade = false;
    }
    if upgrade && !options.ignored_upgrades.is_empty() {
        nominated::remove_ignored(headers, &options.ignored_upgrades);
        upgrade = is_upgrade(headers);
    }
    if method == Method::CONNECT {
        match fields.content_length {
            Some(0) => drop(headers.remove(header::CONTENT_LENGTH)),
            Some(_) => return Err(CodecError::BodyDisallowed),
            None => {}
        }
        fields.content_length = None;
        upgrade = true;
    }
    if fields.encodings > 0 {
        if fields.content_length.is_some() {
            if !fields.chunked || !options.allow_chunked_length {
                return Err(CodecError::LengthAndChunked);
            }
            headers.remove(header::CONTENT_LENGTH);
            fields.content_length = None;
        }
        if !fields.chunked || fields.encodings > 1 || method == Method::CONNECT {
            return Err(CodecError::TransferEncoding);
        }
    }
    let version = line.version.unwrap_or(Version::HTTP_10).max(Version::HTTP_10);
    let keep_alive = keeps_alive(version, headers);
    if !upgrade && headers.contains_key(header::CONNECTION) {
        nominated::sanitize(headers, &mut fields.host)?;
    }
    let target = target::parse(target, &method, options.absolute_urls)?;
    if options.checks_scheme && target.scheme == Some(Scheme::Https) && scheme == Scheme::Http {
        return Err(CodecError::HttpsWithoutTls);
    }
    if version != Version::HTTP_11 && !options.accept_http_10 {
        return Err(CodecError::LowVersion);
    }
    if line.version.is_none() {
        return Err(CodecError::Syntax);
    }
    // The authority of an absolute target wins over `host` (RFC 9112, 3.2.2).
    let authority = match target.authority {
        Some(authority) => Some(authority),
        None => fields.host,
    };
    if !authority.as_ref().is_none_or(|a| target::is_authority(a.as_bytes())) {
        return Err(CodecError::InvalidAuthority);
    }
    let length = match (upgrade, fields.encodings, fields.content_length) {
        (true, ..) => Length::Upgrade,
        (false, 0, None | Some(0)) => Length::None,
        (false, 0, Some(n)) => Length::Exact(n),
        (false, ..) => Length::Chunked,
    };
    Ok(Head {
        request: RequestHead {
            method,
            scheme: target.scheme.unwrap_or(scheme),
            authority,
            path: target.path,
            protocol: None,
            version,
            headers: fields.headers,
            spelling: fields.spelling.map(Arc::new),
        },
        length,
        keep_alive,
        scheme_given: target.scheme.is_some(),
        dropped: fields.dropped,
    })
}

/// Where the three fields of a request line are.
struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    /// 0.9 when it names none; none: neither of those that there are.
    version: Option<Version>,
}

impl RequestLine {
    /// Splits at white space, of which there may be more than one, as Envoy allows.
    fn read(line: &[u8], options: &H1Options) -> Result<Self, CodecError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().any(|b| is_control(*b)) {
            return Err(CodecError::InvalidCharacters);
        }
        let mut fields = [0..0, 0..0, 0..0];
        let mut at = 0;
        for field in &mut fields {
            let rest = line.get(at..).unwrap_or_default();
            let length = rest.iter().position(|b| is_blank(*b)).unwrap_or(rest.len());
            *field = at..at + length;
            at += length;
            let rest = line.get(at..).unwrap_or_default();
            at += rest.iter().position(|b| !is_blank(*b)).unwrap_or(rest.len());
        }
        let [method, target, version] = fields;
        if at < line.len() || method.is_empty() || target.is_empty() {
            return Err(CodecError::Syntax);
        }
        let version = match line.get(version).unwrap_or_default() {
            b"HTTP/1.1" => Some(Version::HTTP_11),
            b"HTTP/1.0" => Some(Version::HTTP_10),
            [] if options.accept_http_10 => Some(Version::HTTP_09),
            [] => return Err(CodecError::LowVersion),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => None,
            _ => return Err(CodecError::Syntax),
        };
        Ok(Self {
            method,
            target,
            version,
        })
    }
}

/// The methods that Envoy's parser knows besides those of the `http` crate, in order.
const METHODS: [&[u8]; 26] = [
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"MSEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
];

fn method(bytes: &[u8], options: &H1Options) -> Result<Method, CodecError> {
    let known = match bytes {
        b"GET" => return Ok(Method::GET),
        b"POST" => return Ok(Method::POST),
        b"PUT" | b"HEAD" | b"DELETE" | b"CONNECT" | b"OPTIONS" | b"TRACE" | b"PATCH" => true,
        other => options.custom_methods || METHODS.binary_search(&other).is_ok(),
    };
    match Method::from_bytes(bytes) {
        Ok(method) if known => Ok(method),
        _ => Err(CodecError::Syntax),
    }
}

/// The header lines after the request line.
pub(super) struct Fields {
    /// Without `host`.
    pub(super) headers: HeaderMap,
    /// Several are joined, which then match no virtual host by accident.
    pub(super) host: Option<HeaderValue>,
    pub(super) content_length: Option<u64>,
    /// How many `transfer-encoding` there are, and whether the last is `chunked`.
    pub(super) encodings: usize,
    pub(super) chunked: bool,
    pub(super) spelling: Option<Spelling>,
    dropped: u32,
}

impl Fields {
    fn none(options: &H1Options) -> Self {
        Self {
            spelling: match options.case {
                HeaderCase::Preserved { proper_others, .. } => Some(Spelling::new(proper_others)),
                HeaderCase::Lower | HeaderCase::ProperWords => None,
            },
            headers: take_map(),
            host: None,
            content_length: None,
            encodings: 0,
            chunked: false,
            dropped: 0,
        }
    }

    /// The lines of `block` from `at` on.
    pub(super) fn read(block: &Bytes, at: usize, options: &H1Options) -> Result<Self, CodecError> {
        let mut fields = Self::none(options);
        let mut count = 0;
        let mut lines = Lines::new(block, at);
        while let Some((line_name, line_value, folded)) = lines.next_header()? {
            if let Some(spelling) = &mut fields.spelling {
                spelling.add(block.slice(line_name.clone()));
            }
            let name = name(block, line_name)?;
            let value = value(block, line_value, folded)?;
            if drops(&name, options)? {
                fields.dropped += 1;
                continue;
            }
            count += 1;
            if count > options.max_headers {
                // Those that will be one are counted as one.
                let seen = inline_headers::count_in_request(&fields.headers) + usize::from(fields.host.is_some());
                count = seen + usize::from(!inline_headers::joins_request(&fields.headers, &name));
                if count > options.max_headers {
                    return Err(CodecError::TooManyHeaders);
                }
            }
            if name == header::HOST {
                fields.add_host(value)?;
                continue;
            }
            if name == header::CONTENT_LENGTH {
                if fields.content_length.is_some() || folded {
                    return Err(CodecError::Syntax);
                }
                fields.content_length = Some(content_length(value.as_bytes())?);
            } else if name == header::TRANSFER_ENCODING {
                if folded {
                    return Err(CodecError::Syntax);
                }
                fields.encodings += 1;
                fields.chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            }
            fields
                .headers
                .try_append(name, value)
                .map_err(|_| CodecError::TooManyHeaders)?;
        }
        Ok(fields)
    }

    fn add_host(&mut self, value: HeaderValue) -> Result<(), CodecError> {
        self.host = Some(match self.host.take() {
            None => value,
            Some(first) => {
                let joined = [first.as_bytes(), b",", value.as_bytes()].concat();
                HeaderValue::from_bytes(&joined).map_err(|_| CodecError::Syntax)?
            }
        });
        Ok(())
    }
}

/// Digits and nothing else: whatever else a reader might make of it, another reader may not.
fn content_length(value: &[u8]) -> Result<u64, CodecError> {
    if value.is_empty() || value.len() > 18 && value.iter().skip_while(|b| **b == b'0').count() > 18 {
        return Err(CodecError::Syntax);
    }
    value.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => Ok(n * 10 + u64::from(b - b'0')),
        _ => Err(CodecError::Syntax),
    })
}

/// Walks over header lines; those that start with white space continue the line before (obs-fold).
pub(super) struct Lines<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The lines of `block` from `at` on.
    pub(super) fn new(block: &'a [u8], at: usize) -> Self {
        Self { block, at }
    }

    /// Where the next header's name and value are, and whether the value goes over several lines; none at the
    /// empty line.
    #[allow(clippy::type_complexity)]
    pub(super) fn next_header(&mut self) -> Result<Option<(Range<usize>, Range<usize>, bool)>, CodecError> {
        let start = self.at;
        let (mut end, mut next) = self.line(start)?;
        let line = self.block.get(start..end).unwrap_or_default();
        let Some(first) = line.first() else { return Ok(None) };
        if is_blank(*first) {
            return Err(CodecError::Syntax);
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(self.bad(start..end));
        };
        let mut folded = false;
        while self.block.get(next).is_some_and(|b| is_blank(*b)) {
            (end, next) = self.line(next)?;
            folded = true;
        }
        self.at = next;
        let value = self.trimmed(start + colon + 1..end);
        Ok(Some((start..start + colon, value, folded)))
    }

    /// Where the line at `start` ends, and where the next one starts.
    fn line(&self, start: usize) -> Result<(usize, usize), CodecError> {
        let rest = self.block.get(start..).unwrap_or_default();
        let lf = memchr(b'\n', rest).ok_or(CodecError::Syntax)?;
        let cr = usize::from(lf > 0 && rest.get(lf - 1) == Some(&b'\r'));
        Ok((start + lf - cr, start + lf + 1))
    }

    fn trimmed(&self, mut range: Range<usize>) -> Range<usize> {
        let blank = |i: usize| {
            self.block
                .get(i)
                .is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        };
        // CR and LF only stand at the ends of folded lines here; one that does not is found with the value.
        let fold = |i: usize| matches!(self.block.get(i), Some(b'\r' | b'\n'));
        while range.start < range.end && blank(range.start) && (!fold(range.start) || self.starts_fold(range.start)) {
            range.start += 1;
        }
        while range.start < range.end && matches!(self.block.get(range.end - 1), Some(b' ' | b'\t')) {
            range.end -= 1;
        }
        range
    }

    fn starts_fold(&self, at: usize) -> bool {
        matches!(self.block.get(at..), Some([b'\r', b'\n', ..] | [b'\n', ..]))
    }

    fn bad(&self, range: Range<usize>) -> CodecError {
        refused(self.block.get(range).unwrap_or_default())
    }
}

/// What is wrong with bytes that are no name or value.
fn refused(bytes: &[u8]) -> CodecError {
    if bytes.iter().any(|b| is_control(*b)) {
        CodecError::InvalidCharacters
    } else {
        CodecError::Syntax
    }
}

/// The name at `range`, lower-case.
pub(super) fn name(block: &[u8], range: Range<usize>) -> Result<HeaderName, CodecError> {
    let bytes = block.get(range).unwrap_or_default();
    HeaderName::from_bytes(bytes).map_err(|_| refused(bytes))
}

/// The value at `range`, without a copy unless it is folded.
pub(super) fn value(block: &Bytes, range: Range<usize>, folded: bool) -> Result<HeaderValue, CodecError> {
    if !folded {
        let bytes = block.slice(range);
        return HeaderValue::from_maybe_shared(bytes.clone()).map_err(|_| refused(&bytes));
    }
    let bytes = block.get(range).unwrap_or_default();
    let mut plain = Vec::with_capacity(bytes.len());
    for line in bytes.split(|b| *b == b'\n') {
        plain.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    }
    HeaderValue::from_bytes(plain.trim_ascii_end()).map_err(|_| refused(bytes))
}

/// `headers_with_underscores_action`: whether the header is left out; an error when it must not be there.
pub(super) fn drops(name: &HeaderName, options: &H1Options) -> Result<bool, CodecError> {
    match options.underscores {
        Underscores::Allow => Ok(false),
        _ if !name.as_str().contains('_') => Ok(false),
        Underscores::Drop => Ok(true),
        Underscores::Reject => Err(CodecError::Underscore),
    }
}

/// Fields that mean nothing in trailers, or too much.
pub(super) fn is_settled_by_head(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TRAILER,
        header::TE,
        header::UPGRADE,
    ]
    .contains(name)
}

/// Whether the request asks for an upgrade, by `connection: upgrade` and `upgrade`.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE) && has_token(headers, &header::CONNECTION, b"upgrade")
}

pub(super) fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    if version == Version::HTTP_11 {
        !has_token(headers, &header::CONNECTION, b"close") && !has_token(headers, &PROXY_CONNECTION, b"close")
    } else {
        has_token(headers, &header::CONNECTION, b"keep-alive")
    }
}

/// Whether a comma-separated header has a token.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().any(|v| {
        v.as_bytes()
            .split(|b| *b == b',')
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(token))
    })
}

fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// What makes Envoy say that characters are invalid.
pub(super) fn is_control(b: u8) -> bool {
    (b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n')) || b == 0x7f
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

thread_local! {
    /// Maps whose requests or responses are over, to be filled again: two allocations less for each request.
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// How many maps a thread keeps.
const KEPT_MAPS: usize = 64;

/// How large a map may be to be kept, in headers.
const KEPT_CAPACITY: usize = 64;

pub(super) fn take_map() -> HeaderMap {
    MAPS.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| HeaderMap::with_capacity(16))
}

/// Gives back a map that is not needed any more.
pub(super) fn give_map(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > KEPT_CAPACITY {
        return;
    }
    map.clear();
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < KEPT_MAPS {
            maps.push(map);
        }
    });
}

#[cfg(test)]
mod tests;
