//! Bytes of one direction of a stream as Envoy's codecs count them: `%DOWNSTREAM_WIRE_BYTES_SENT%` and its kin.

use std::cell::Cell;

use http::{HeaderMap, header};

/// One direction on one side of a stream.
#[derive(Debug, Default)]
pub struct Meter {
    /// Of headers: for HTTP/1 their lines without the first one.
    pub header: Cell<u64>,
    /// The same before HTTP/2 has compressed it.
    pub decompressed: Cell<u64>,
    /// The whole head.
    pub head: Cell<u64>,
    /// What frames the body: the lines around chunks.
    pub framing: Cell<u64>,
    /// Whether the body is in chunks.
    pub chunked: Cell<bool>,
}

/// `: ` counts as one where headers are read, and a line has two more.
const READ_LINE: u64 = 3;
/// `: ` and the line's end.
const WRITTEN_LINE: u64 = 4;
/// The last chunk and the empty line.
const LAST_CHUNK: u64 = 5;

impl Meter {
    /// An HTTP/1 head that was read, with the length of its first line and whatever was taken out of `headers`.
    pub fn read_h1(&self, first_line: u64, headers: &HeaderMap, more: &[(&str, &str)], head: Option<u64>) {
        let lines = (headers.len() + more.len()) as u64;
        let bytes = bytes(headers, more);
        self.set(bytes + READ_LINE * lines.max(1));
        self.head
            .set(head.unwrap_or(first_line + 2 + bytes + WRITTEN_LINE * lines + 2));
    }

    /// An HTTP/1 head that was written.
    pub fn wrote_h1(&self, first_line: u64, headers: &HeaderMap, more: &[(&str, &str)]) {
        let lines = (headers.len() + more.len()) as u64;
        let bytes = bytes(headers, more) + WRITTEN_LINE * lines;
        self.set(bytes);
        self.head.set(first_line + 2 + bytes + 2);
    }

    /// A head of HTTP/2, whose compressed size nobody tells.
    pub fn h2(&self, headers: &HeaderMap, more: &[(&str, &str)]) {
        let bytes = bytes(headers, more);
        self.set(bytes);
        self.head.set(bytes);
    }

    fn set(&self, header: u64) {
        self.header.set(header);
        self.decompressed.set(header);
        self.framing.set(0);
        self.chunked.set(false);
    }

    /// Bytes of body that passed in one piece.
    pub fn data(&self, length: usize) {
        if self.chunked.get() && length > 0 {
            let digits = u64::from((usize::BITS - length.leading_zeros()).div_ceil(4));
            self.framing.set(self.framing.get() + digits + 4);
        }
    }

    /// The body has ended.
    pub fn end(&self) {
        if self.chunked.replace(false) {
            self.framing.set(self.framing.get() + LAST_CHUNK);
        }
    }

    /// All bytes, with so many of the body.
    pub fn wire(&self, body: u64) -> u64 {
        self.head.get() + self.framing.get() + body
    }
}

fn bytes(headers: &HeaderMap, more: &[(&str, &str)]) -> u64 {
    let kept: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    let taken: usize = more.iter().map(|(n, v)| n.len() + v.len()).sum();
    (kept + taken) as u64
}

/// Whether a body of unknown length goes in chunks.
pub fn is_chunked(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::CONTENT_LENGTH)
}
