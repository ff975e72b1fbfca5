//! Where the bytes of a message's body end.

use bytes::BytesMut;

use super::{
    CodecError,
    chunked::{Chunked, Step},
    head::Length,
};
use crate::http::codec::H1Options;

/// How the body of the current message goes on.
#[derive(Debug)]
pub(super) enum Decoder {
    Done,
    Exact(u64),
    Chunked(Chunked),
    /// The body of a response that ends with its connection.
    UntilClose,
    /// The rest is not ours to read.
    Upgrade,
}

impl From<Length> for Decoder {
    fn from(length: Length) -> Self {
        match length {
            Length::None => Self::Done,
            Length::Exact(n) => Self::Exact(n),
            Length::Chunked => Self::Chunked(Chunked::default()),
            Length::UntilClose => Self::UntilClose,
            Length::Upgrade => Self::Upgrade,
        }
    }
}

impl Decoder {
    /// Takes what it can from `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut, options: &H1Options) -> Result<Step, CodecError> {
        match self {
            Self::Done | Self::Upgrade | Self::Exact(0) => Ok(Step::End(None)),
            Self::Exact(_) | Self::UntilClose if buffer.is_empty() => Ok(Step::Starved),
            Self::Exact(left) => {
                let n = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                *left -= n as u64;
                Ok(Step::Data(buffer.split_to(n).freeze()))
            }
            Self::UntilClose => Ok(Step::Data(buffer.split().freeze())),
            Self::Chunked(chunked) => chunked.decode(buffer, options),
        }
    }

    /// Whether the message was read to its end.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Exact(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilClose | Self::Upgrade => false,
        }
    }

    /// How many trailers were left out because of underscores.
    pub(super) fn dropped(&self) -> u32 {
        match self {
            Self::Chunked(chunked) => chunked.dropped,
            _ => 0,
        }
    }

    /// Bytes of the body that are still to come, when that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Exact(left) => Some(*left),
            Self::Chunked(chunked) if !chunked.is_done() => None,
            Self::UntilClose => None,
            _ => Some(0),
        }
    }

    /// Takes the last chunk when it is there, so that the end is known together with the last bytes.
    pub(super) fn look_ahead(&mut self, buffer: &mut BytesMut) {
        if let Self::Chunked(chunked) = self {
            chunked.end_if_next(buffer);
        }
    }
}
