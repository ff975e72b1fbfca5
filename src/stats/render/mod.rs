//! What the admin endpoints `/stats` and `/stats/prometheus` print.
//!
//! Rendering walks the store on the caller's thread (never a worker's), reads each value once and hands out the text
//! in pieces, so memory stays bounded however many statistics there are:
//!
//! ```text
//! Query::parse -> text | json | prometheus
//!                   merge: sources in name order, opened as the walk reaches them
//! ```

mod json;
mod merge;
mod number;
mod prometheus;
mod query;
mod text;

pub use json::json;
pub use number::general;
pub use prometheus::prometheus;
pub use query::{BucketMode, Format, Hidden, InvalidQuery, Query, TypeFilter};
pub use text::text;

use bytes::Bytes;

use super::store::Store;

/// Pieces of about this size are handed out.
const PIECE: usize = 64 * 1024;

/// Prints the store in the query's format.
pub fn render(store: &Store, query: &Query, out: &mut dyn FnMut(Bytes)) {
    match query.format {
        Format::Text => text(store, query, out),
        Format::Json => json(store, query, out),
        Format::Prometheus => prometheus(store, query, out),
    }
}

/// Collects text and hands it out in pieces.
struct Output<'a> {
    buffer: Vec<u8>,
    out: &'a mut dyn FnMut(Bytes),
}

impl<'a> Output<'a> {
    fn new(out: &'a mut dyn FnMut(Bytes)) -> Self {
        Self {
            buffer: Vec::with_capacity(PIECE + PIECE / 4),
            out,
        }
    }

    fn push(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        if number < 10 {
            self.buffer.push(b'0' + number as u8);
        } else {
            self.push(itoa::Buffer::new().format(number));
        }
    }

    /// Between two entries: hands out what has come together.
    fn entry_done(&mut self) {
        if self.buffer.len() >= PIECE {
            let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE + PIECE / 4));
            (self.out)(piece.into());
        }
    }

    fn finish(self) {
        if !self.buffer.is_empty() {
            (self.out)(self.buffer.into());
        }
    }
}

#[cfg(test)]
mod tests;
