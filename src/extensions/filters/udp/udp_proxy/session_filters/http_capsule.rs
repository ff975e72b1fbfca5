//! `envoy.filters.udp.session.http_capsule`: datagrams as HTTP datagram capsules (RFC 9297, RFC 9298), for hosts that
//! are tunnels.

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::udp::udp_proxy::session::http_capsule::v3::FilterConfig as Proto;

use super::super::session_filter::{SessionFilter, UdpSessionFilter, UdpSessionFilterFactory};
use crate::config::{BuildCx, ConfigResult};

/// The type of a capsule that is a datagram.
const DATAGRAM: u64 = 0;

/// The context of datagrams that are UDP payloads.
const CONTEXT: u8 = 0;

/// Most bytes of an unfinished capsule that are kept: the longest datagram, with what is before it.
const MAX_PENDING: usize = 65536 + 16;

/// The extension.
pub struct Factory;

impl UdpSessionFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.udp.session.http_capsule";
    type Proto = Proto;

    fn build(&self, proto: Proto, _: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpSessionFilter>> {
        let Proto {} = proto;
        Ok(Arc::new(HttpCapsule))
    }
}

struct HttpCapsule;

impl UdpSessionFilter for HttpCapsule {
    fn create(&self) -> Box<dyn SessionFilter> {
        Box::<Capsules>::default()
    }
}

/// The capsules of one session.
#[derive(Default)]
struct Capsules {
    /// The beginning of a capsule whose rest has not come yet.
    pending: Vec<u8>,
}

impl SessionFilter for Capsules {
    fn on_data(&mut self, bytes: &[u8], next: &mut dyn FnMut(&[u8])) {
        let mut capsule = Vec::with_capacity(bytes.len() + 10);
        put_varint(&mut capsule, DATAGRAM);
        put_varint(&mut capsule, bytes.len() as u64 + 1);
        capsule.push(CONTEXT);
        capsule.extend_from_slice(bytes);
        next(&capsule);
    }

    fn on_write(&mut self, bytes: &[u8], next: &mut dyn FnMut(&[u8])) {
        self.pending.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some((kind, payload, length)) = self.pending.get(taken..).and_then(capsule) {
            taken += length;
            // Capsules of other types, and datagrams of other contexts, are passed over.
            if let (DATAGRAM, Some((CONTEXT, payload))) = (kind, payload.split_first().map(|(c, p)| (*c, p))) {
                next(payload);
            }
        }
        self.pending.drain(..taken);
        if self.pending.len() > MAX_PENDING {
            self.pending.clear();
        }
    }
}

/// The type and the payload of the capsule that bytes begin with, and its whole length; none while it is not whole.
fn capsule(bytes: &[u8]) -> Option<(u64, &[u8], usize)> {
    let (kind, first) = varint(bytes)?;
    let (length, second) = varint(bytes.get(first..)?)?;
    let (start, length) = (first + second, usize::try_from(length).ok()?);
    let end = start.checked_add(length)?;
    Some((kind, bytes.get(start..end)?, end))
}

/// A number of QUIC's encoding (RFC 9000), and how many bytes it has.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest
        .iter()
        .fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

fn put_varint(into: &mut Vec<u8>, value: u64) {
    let (mark, length) = match value {
        0..0x40 => (0, 1),
        0x40..0x4000 => (0x40, 2),
        0x4000..0x4000_0000 => (0x80, 4),
        _ => (0xc0, 8),
    };
    let bytes = value.to_be_bytes();
    let mut bytes = bytes[8 - length..].to_vec();
    if let Some(first) = bytes.first_mut() {
        *first |= mark;
    }
    into.append(&mut bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Capsules::default().on_data(bytes, &mut |b| out.extend_from_slice(b));
        out
    }

    fn unwrap(capsules: &mut Capsules, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        capsules.on_write(bytes, &mut |b| out.push(b.to_vec()));
        out
    }

    #[test]
    fn what_is_wrapped_is_unwrapped_whatever_its_length() {
        for length in [0, 1, 62, 63, 64, 16382, 16383, 60000] {
            let datagram = vec![b'x'; length];
            assert_eq!(unwrap(&mut Capsules::default(), &wrap(&datagram)), [datagram]);
        }
        assert_eq!(wrap(b"hello"), b"\0\x06\0hello");
    }

    #[test]
    fn capsules_come_in_pieces_and_together() {
        let mut capsules = Capsules::default();
        let both = [wrap(b"one"), wrap(b"two")].concat();
        assert_eq!(unwrap(&mut capsules, &both[..4]), Vec::<Vec<u8>>::new());
        assert_eq!(unwrap(&mut capsules, &both[4..]), [b"one", b"two"]);
    }

    #[test]
    fn others_are_passed_over() {
        let mut capsules = Capsules::default();
        // A type that nobody knows, a context of somebody else's, and a datagram without a context.
        let bytes = [&b"\x29\x03abc"[..], b"\0\x03\x02no", b"\0\0", &wrap(b"yes")].concat();
        assert_eq!(unwrap(&mut capsules, &bytes), [b"yes"]);
    }

    #[test]
    fn a_capsule_without_end_is_given_up() {
        let mut capsules = Capsules::default();
        capsules.on_write(b"\0\xff\xff\xff\xff\xff\xff\xff\xff", &mut |_| {});
        capsules.on_write(&vec![0; MAX_PENDING], &mut |_| {});
        assert!(capsules.pending.is_empty());
    }
}
