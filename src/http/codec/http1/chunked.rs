//! The chunked transfer coding, read.
//!
//! Stricter than Envoy where leniency lets two readers disagree about where a message ends: a size is at most 16
//! hexadecimal digits, its line and the chunk end with CR LF, and nothing stands between a chunk and that end.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{
    CodecError,
    head::{self, Lines},
};
use crate::http::codec::H1Options;

/// Chunk lines may be longer than what they announce by this much, over the whole body: extensions and one-byte
/// chunks cost work that carries nothing.
const EXCESS: u64 = 16 * 1024;

/// What a line of its own may cost without counting as excess.
const LINE: u64 = 16;

/// What decoding came to.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Bytes of the body.
    Data(Bytes),
    /// The end, with trailers if they are enabled and there are some.
    End(Option<HeaderMap>),
    /// There are not enough bytes to go on.
    Starved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the digits of a size; `some` were read.
    Size {
        some: bool,
    },
    /// In the white space after it.
    SizeSpace,
    /// In what follows a `;`, which is dropped.
    Extension,
    /// A CR was read.
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Where the decoder is in a body.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Bytes left of this chunk; its size while that is read.
    left: u64,
    /// Bytes of this line so far.
    line: u64,
    excess: u64,
    /// How much of the trailers was searched for their end.
    searched: usize,
    /// How many trailers were left out because of underscores.
    pub(super) dropped: u32,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size { some: false },
            left: 0,
            line: 0,
            excess: 0,
            searched: 0,
            dropped: 0,
        }
    }
}

impl Chunked {
    /// Takes what it can from `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut, options: &H1Options) -> Result<Step, CodecError> {
        loop {
            match self.state {
                State::Data => {
                    if buffer.is_empty() {
                        return Ok(Step::Starved);
                    }
                    let n = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    self.left -= n as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Data(buffer.split_to(n).freeze()));
                }
                State::Trailers => return self.trailers(buffer, options),
                State::Done => return Ok(Step::End(None)),
                _ => {
                    let mut used = 0;
                    let stepped = self.framing(buffer, &mut used);
                    bytes::Buf::advance(buffer, used);
                    stepped?;
                    if buffer.is_empty() && !matches!(self.state, State::Done) {
                        return Ok(Step::Starved);
                    }
                }
            }
        }
    }

    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the last chunk if it is next and has no trailers.
    pub(super) fn end_if_next(&mut self, buffer: &mut BytesMut) {
        const LAST: &[u8] = b"0\r\n\r\n";
        let end: &[u8] = match self.state {
            State::DataCr => b"\r\n0\r\n\r\n",
            State::Size { some: false } => LAST,
            _ => return,
        };
        if buffer.starts_with(end) {
            bytes::Buf::advance(buffer, end.len());
            self.state = State::Done;
        }
    }

    /// Reads up to the next data or the trailers.
    fn framing(&mut self, buffer: &[u8], used: &mut usize) -> Result<(), CodecError> {
        for &byte in buffer {
            *used += 1;
            self.line += 1;
            self.state = match (self.state, byte) {
                (State::Size { .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    // The topmost bits stay free, so that nothing made of sizes can overflow.
                    if self.left >> 56 != 0 {
                        return Err(CodecError::Syntax);
                    }
                    self.left = self.left << 4 | (byte as char).to_digit(16).map_or(0, u64::from);
                    State::Size { some: true }
                }
                (State::Size { some: true }, b'\r') | (State::SizeSpace | State::Extension, b'\r') => State::SizeEnd,
                (State::Size { some: true }, b' ' | b'\t') | (State::SizeSpace, b' ' | b'\t') => State::SizeSpace,
                (State::Size { some: true } | State::SizeSpace, b';') => State::Extension,
                (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => State::Extension,
                (State::SizeEnd, b'\n') => {
                    self.charge()?;
                    if self.left == 0 { State::Trailers } else { State::Data }
                }
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => {
                    self.line = 0;
                    State::Size { some: false }
                }
                _ => return Err(CodecError::Syntax),
            };
            if self.line > EXCESS + LINE {
                return Err(CodecError::Syntax);
            }
            if matches!(self.state, State::Data | State::Trailers) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Weighs a chunk's line against what the chunk brings.
    fn charge(&mut self) -> Result<(), CodecError> {
        let free = LINE.saturating_add(self.left.saturating_mul(2));
        self.excess = self.excess.saturating_add(self.line).saturating_sub(free);
        self.line = 0;
        if self.excess > EXCESS {
            return Err(CodecError::Syntax);
        }
        Ok(())
    }

    fn trailers(&mut self, buffer: &mut BytesMut, options: &H1Options) -> Result<Step, CodecError> {
        let none = match buffer.as_ref() {
            [b'\n', ..] => Some(1),
            [b'\r', b'\n', ..] => Some(2),
            _ => None,
        };
        if let Some(n) = none {
            bytes::Buf::advance(buffer, n);
            self.state = State::Done;
            return Ok(Step::End(None));
        }
        let Some(end) = head::find_end(buffer, &mut self.searched) else {
            if buffer.len() > options.max_header_bytes {
                return Err(CodecError::HeadersTooLarge);
            }
            return Ok(Step::Starved);
        };
        if end > options.max_header_bytes {
            return Err(CodecError::HeadersTooLarge);
        }
        let block = buffer.split_to(end).freeze();
        self.state = State::Done;
        let mut trailers = HeaderMap::new();
        let mut lines = Lines::new(&block, 0);
        while let Some((name, value, folded)) = lines.next_header()? {
            let name = head::name(&block, name)?;
            let value = head::value(&block, value, folded)?;
            // Framing and routing were settled by the head (RFC 9110, 6.5.1).
            if !options.enable_trailers || head::is_settled_by_head(&name) {
                continue;
            }
            if head::drops(&name, options)? {
                self.dropped += 1;
                continue;
            }
            trailers.append(name, value);
            if trailers.len() > options.max_headers {
                return Err(CodecError::TooManyHeaders);
            }
        }
        Ok(Step::End((!trailers.is_empty()).then_some(trailers)))
    }
}

#[cfg(test)]
mod tests;
