//! Frame heads in a stream of bytes (RFC 9113, 4.1).

/// The types that are looked at.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// END_STREAM of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// GOAWAY that announces another one: no stream is refused yet.
pub(super) const NOTICE: [u8; 17] = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Bytes of the longest payload prefix that is looked at: GOAWAY's last stream and code.
const MOST: usize = HEAD + 8;

/// A frame as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of payload.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes of padding with its length.
    pub(super) padding: u32,
    /// Error code of RST_STREAM and GOAWAY.
    pub(super) code: u32,
    /// Last stream of GOAWAY.
    pub(super) last_stream: u32,
}

/// Follows one direction of a connection.
pub(super) struct Scanner {
    head: [u8; MOST],
    have: usize,
    want: usize,
    /// Bytes until the next head.
    skip: usize,
}

impl Scanner {
    /// `skip` bytes come before the first frame: the client's preface.
    pub(super) fn new(skip: usize) -> Self {
        Self {
            head: [0; MOST],
            have: 0,
            want: HEAD,
            skip,
        }
    }

    /// Whether the last frame is whole and the next one has not begun.
    pub(super) fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// So many bytes more are of the frame that has begun, or of its head; at least one.
    pub(super) fn ahead(&self) -> usize {
        match self.skip {
            0 => self.want - self.have,
            skip => skip,
        }
    }

    /// Takes the next bytes; `seen` is called with each frame whose head they end.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(&Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let n = (self.want - self.have).min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            if let Some(room) = self.head.get_mut(self.have..self.have + n) {
                room.copy_from_slice(now);
            }
            self.have += n;
            bytes = rest;
            if self.have < self.want {
                return;
            }
            let [l2, l1, l0, kind, flags, ..] = self.head;
            let length = u32::from_be_bytes([0, l2, l1, l0]);
            if self.want == HEAD {
                let prefix = match kind {
                    kind::RST_STREAM => 4,
                    kind::GOAWAY => 8,
                    kind::DATA | kind::HEADERS if flags & PADDED != 0 => 1,
                    _ => 0,
                };
                let prefix = prefix.min(length as usize);
                if prefix > 0 {
                    self.want += prefix;
                    continue;
                }
            }
            let frame = self.frame(length, kind, flags);
            self.skip = length as usize - (self.want - HEAD);
            self.have = 0;
            self.want = HEAD;
            seen(&frame);
        }
    }

    fn frame(&self, length: u32, kind: u8, flags: u8) -> Frame {
        let word = |at: usize| {
            let bytes = self.head.get(at..at + 4).filter(|_| self.want >= at + 4);
            bytes.map_or(0, |b| b.iter().fold(0, |word, b| word << 8 | u32::from(*b)))
        };
        let payload = word(HEAD);
        let (last_stream, code) = match kind {
            kind::GOAWAY => (payload & 0x7fff_ffff, word(HEAD + 4)),
            kind::RST_STREAM => (0, payload),
            _ => (0, 0),
        };
        let padded = matches!(kind, kind::DATA | kind::HEADERS) && flags & PADDED != 0 && self.want > HEAD;
        let padding = match self.head.get(HEAD) {
            Some(padding) if padded => u32::from(*padding) + 1,
            _ => 0,
        };
        let stream = self.head.get(5..HEAD).unwrap_or_default();
        Frame {
            length,
            kind,
            flags,
            stream: stream.iter().fold(0, |word, b| word << 8 | u32::from(*b)) & 0x7fff_ffff,
            padding,
            code,
            last_stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], step: usize) -> Vec<Frame> {
        let mut scanner = Scanner::new(3);
        let mut frames = Vec::new();
        for part in bytes.chunks(step) {
            scanner.feed(part, |frame| frames.push(*frame));
        }
        frames
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"pre".to_vec();
        // PING, padded DATA, RST_STREAM, GOAWAY with debug data, empty SETTINGS.
        bytes.extend_from_slice(&[0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend_from_slice(&[0, 0, 4, 0, 9, 0, 0, 0, 5, 2, b'x', 0, 0]);
        bytes.extend_from_slice(&[0, 0, 4, 3, 0, 0, 0, 0, 7, 0, 0, 0, 8]);
        bytes.extend_from_slice(&[0, 0, 9, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 2, b'!']);
        bytes.extend_from_slice(&[0, 0, 0, 4, 1, 0, 0, 0, 0]);
        for step in 1..bytes.len() {
            let frames = scan(&bytes, step);
            let kinds: Vec<u8> = frames.iter().map(|f| f.kind).collect();
            assert_eq!(kinds, [6, 0, 3, 7, 4], "step {step}");
            assert_eq!((frames[1].stream, frames[1].padding, frames[1].length), (5, 3, 4));
            assert_eq!((frames[2].stream, frames[2].code), (7, 8));
            assert_eq!((frames[3].last_stream, frames[3].code), (0x7fff_ffff, 2));
        }
    }
}
