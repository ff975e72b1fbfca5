//! A ClientHello read off the first bytes of a connection, as far as BoringSSL reads it before a certificate is chosen.
//!
//! Nothing is decrypted and nothing is negotiated: what can be told apart is a ClientHello, bytes that are none, and too
//! few bytes.

use super::reader::Reader;

const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The longest ClientHello, and the longest record.
const MAX_MESSAGE: usize = 16 * 1024;
const MAX_RECORD: usize = MAX_MESSAGE + 256;

/// Records without a byte of a message that are put up with.
const MAX_EMPTY_RECORDS: usize = 32;

/// Numbers of extensions.
pub(super) const SERVER_NAME: u16 = 0;
pub(super) const SUPPORTED_GROUPS: u16 = 10;
pub(super) const EC_POINT_FORMATS: u16 = 11;
pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
pub(super) const ALPN: u16 = 16;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Too few to tell, or a ClientHello that is not whole yet.
    Incomplete,
    /// No ClientHello that TLS goes on with, told after so many bytes.
    NotTls(usize),
    /// A ClientHello of so many bytes, those of its records included.
    Hello(Box<ClientHello>, usize),
}

/// A ClientHello.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientHello {
    /// `legacy_version`
    pub version: u16,
    /// Cipher suites, as they were offered.
    pub ciphers: Vec<u16>,
    /// Extensions in their order.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// Looks at the bytes so far.
pub(super) fn read(bytes: &[u8]) -> Read {
    let mut message: Vec<u8> = Vec::new();
    let mut at = 0;
    let mut empty = 0;
    loop {
        let Some(&[kind, major, _, high, low]) = bytes.get(at..at + HEADER) else {
            return Read::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if major != 3 || length > MAX_RECORD {
            return Read::NotTls(at + HEADER);
        }
        let Some(body) = bytes.get(at + HEADER..at + HEADER + length) else {
            return Read::Incomplete;
        };
        at += HEADER + length;
        empty += usize::from(length == 0);
        if kind != HANDSHAKE || length > MAX_MESSAGE || empty > MAX_EMPTY_RECORDS {
            return Read::NotTls(at);
        }
        message.extend(body);
        let &[kind, a, b, c, ..] = message.as_slice() else {
            continue;
        };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length > MAX_MESSAGE {
            return Read::NotTls(at);
        }
        let Some(body) = message.get(4..4 + length) else {
            continue;
        };
        return match ClientHello::parse(body).filter(|_| kind == CLIENT_HELLO) {
            Some(hello) => Read::Hello(Box::new(hello), at),
            None => Read::NotTls(at),
        };
    }
}

impl ClientHello {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut body = Reader(body);
        let version = body.u16()?;
        body.bytes(32)?;
        (body.prefixed_u8()?.len() <= 32).then_some(())?;
        let ciphers = body.prefixed_u16()?;
        (ciphers.len() >= 2 && ciphers.len() % 2 == 0).then_some(())?;
        // Compression methods.
        (!body.prefixed_u8()?.is_empty()).then_some(())?;
        let mut hello = Self {
            version,
            ciphers: Reader(ciphers).u16s(),
            extensions: Vec::new(),
        };
        if body.is_empty() {
            return Some(hello);
        }
        let mut extensions = Reader(body.prefixed_u16()?);
        body.is_empty().then_some(())?;
        while !extensions.is_empty() {
            let (kind, value) = (extensions.u16()?, extensions.prefixed_u16()?);
            // Each at most once.
            hello.extension(kind).is_none().then_some(())?;
            hello.extensions.push((kind, value.to_vec()));
        }
        // A name must be one that can be read.
        (hello.extension(SERVER_NAME).is_none() || hello.server_name().is_some()).then_some(hello)
    }

    /// Whether `legacy_version` is one that there is. What `supported_versions` says is for the handshake.
    pub fn is_of_known_version(&self) -> bool {
        (0x0301..=0x0304).contains(&self.version)
    }

    /// The value of an extension.
    pub fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(k, _)| *k == kind).map(|(_, v)| &**v)
    }

    /// SNI, as it was sent.
    pub fn server_name(&self) -> Option<String> {
        self.extension(SERVER_NAME).and_then(read_name)
    }

    /// ALPN; none when it is broken.
    pub fn protocols(&self) -> Vec<String> {
        self.extension(ALPN).and_then(read_protocols).unwrap_or_default()
    }
}

/// One name, of a host.
fn read_name(value: &[u8]) -> Option<String> {
    let mut value = Reader(value);
    let mut list = Reader(value.prefixed_u16()?);
    let (kind, name) = (list.u8()?, list.prefixed_u16()?);
    let right =
        kind == 0 && list.is_empty() && value.is_empty() && (1..=255).contains(&name.len()) && !name.contains(&0);
    right.then(|| String::from_utf8_lossy(name).into_owned())
}

fn read_protocols(value: &[u8]) -> Option<Vec<String>> {
    let mut value = Reader(value);
    let mut list = Reader(value.prefixed_u16()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let name = list.prefixed_u8().filter(|name| !name.is_empty())?;
        protocols.push(String::from_utf8_lossy(name).into_owned());
    }
    (value.is_empty() && !protocols.is_empty()).then_some(protocols)
}

#[cfg(test)]
mod tests;
