//! As much of Thrift's transports and protocols as one call without arguments needs.

use xds_protos::envoy::extensions::filters::network::thrift_proxy::v3::{
    ProtocolType::{self, Compact, LaxBinary},
    TransportType::{self, Framed, Header, Unframed},
};

const CALL: u8 = 1;
const REPLY: u8 = 2;
const EXCEPTION: u8 = 3;

/// How messages are written.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    /// Any but `AUTO_TRANSPORT`.
    pub transport: TransportType,
    /// Any but `AUTO_PROTOCOL` and `TWITTER`.
    pub protocol: ProtocolType,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is more to come.
    Unfinished,
    /// That is no Thrift.
    Garbage,
    /// The method returned.
    Returned,
    /// It threw something, or there is no such method.
    Threw,
}

impl Wire {
    /// A call of a method without arguments.
    pub fn call(&self, method: &str) -> Vec<u8> {
        let name = method.as_bytes();
        let length = u32::try_from(name.len()).unwrap_or(0);
        let mut message = Vec::new();
        match self.protocol {
            Compact => {
                message.extend([0x82, CALL << 5 | 1, 0]);
                varint(length, &mut message);
                message.extend(name);
            }
            LaxBinary => {
                message.extend(length.to_be_bytes());
                message.extend(name);
                message.extend([CALL, 0, 0, 0, 0]);
            }
            _ => {
                message.extend([0x80, 1, 0, CALL]);
                message.extend(length.to_be_bytes());
                message.extend(name);
                message.extend([0; 4]);
            }
        }
        // The end of a struct without fields, twice, as Envoy writes it.
        message.extend([0, 0]);
        let framed = |head: &[u8]| {
            let length = u32::try_from(head.len() + message.len()).unwrap_or(0);
            [&length.to_be_bytes()[..], head, &message].concat()
        };
        match self.transport {
            Framed => framed(&[]),
            Header => {
                let protocol = if self.protocol == Compact { 2 } else { 0 };
                // Magic, flags, sequence, one word of header: the protocol, no transforms, padding.
                framed(&[0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, protocol, 0, 0, 0])
            }
            _ => message,
        }
    }

    /// What the bytes of an answer say so far.
    pub fn outcome(&self, bytes: &[u8]) -> Outcome {
        // A frame that is there and ends too soon is seen as unfinished, and the check's timeout ends that.
        self.read(Reader(bytes)).unwrap_or(Outcome::Unfinished)
    }

    fn read(&self, mut reader: Reader<'_>) -> Option<Outcome> {
        if self.transport != Unframed {
            let length = usize::try_from(reader.u32()?).ok()?;
            reader = Reader(reader.take(length)?);
            if self.transport == Header {
                if reader.take(2)? != [0x0f, 0xff] {
                    return Some(Outcome::Garbage);
                }
                reader.take(6)?;
                let words = reader.take(2)?;
                reader.take(4 * usize::from(u16::from_be_bytes([words[0], words[1]])))?;
            }
        }
        reader.message(self.protocol)
    }
}

fn varint(mut n: u32, out: &mut Vec<u8>) {
    while n > 0x7f {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Bytes that may end too soon.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn varint(&mut self) -> Option<u32> {
        let mut n = 0_u32;
        for shift in (0..32).step_by(7) {
            let byte = self.u8()?;
            n |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(n)
    }

    /// The kind of a message and the first field of its result.
    fn message(&mut self, protocol: ProtocolType) -> Option<Outcome> {
        let kind = match protocol {
            Compact => {
                if self.u8()? != 0x82 {
                    return Some(Outcome::Garbage);
                }
                let kind = self.u8()? >> 5;
                self.varint()?;
                let name = self.varint()?;
                self.take(name as usize)?;
                kind
            }
            LaxBinary => {
                let name = self.u32()?;
                self.take(name as usize)?;
                let kind = self.u8()?;
                self.take(4)?;
                kind
            }
            _ => {
                let head = self.take(4)?;
                if head[..2] != [0x80, 1] {
                    return Some(Outcome::Garbage);
                }
                let name = self.u32()?;
                self.take(name as usize)?;
                self.take(4)?;
                head[3]
            }
        };
        match kind {
            EXCEPTION => Some(Outcome::Threw),
            REPLY => self.result(protocol),
            _ => Some(Outcome::Garbage),
        }
    }

    /// A result is a struct: field 0 is what was returned, another one what was thrown, none means nothing.
    fn result(&mut self, protocol: ProtocolType) -> Option<Outcome> {
        let field = self.u8()?;
        let number = match (field, protocol) {
            (0, _) => 0,
            (_, Compact) if field >> 4 == 0 => {
                let zigzag = self.varint()?;
                zigzag >> 1
            }
            (_, Compact) => u32::from(field >> 4),
            _ => {
                let bytes = self.take(2)?;
                u32::from(u16::from_be_bytes([bytes[0], bytes[1]]))
            }
        };
        Some(match number {
            0 => Outcome::Returned,
            _ => Outcome::Threw,
        })
    }
}

#[cfg(test)]
mod tests;
