//! What passes under the library: frames are counted, and held to Envoy's flood limits.
//!
//! The library answers broken frames by itself and tells of few of them; the frames on the wire tell of all.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io,
    rc::Rc,
};

use super::{
    frames::{END_STREAM, Frame, NOTICE as NOTICE_FRAME, Scanner, kind},
    stats::Http2CodecStats,
};
use crate::stats::Stats;

/// The client's preface.
const PREFACE: usize = 24;
/// GOAWAY that announces another one.
const NOTICE: u32 = 0x7fff_ffff;
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
/// So many streams are remembered at most.
const REMEMBERED: usize = 4096;

/// How much of what carries nothing a peer may send. Defaults are Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimits {
    /// `max_consecutive_inbound_frames_with_empty_payload`; default 1.
    pub empty_frames: u32,
    /// `max_inbound_priority_frames_per_stream`; default 100.
    pub priority_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`; default 10.
    pub window_updates_per_data: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            empty_frames: 1,
            priority_per_stream: 100,
            window_updates_per_data: 10,
        }
    }
}

/// A flood that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Frames without a payload.
    EmptyFrames,
    /// PRIORITY frames.
    Priority,
    /// WINDOW_UPDATE frames.
    WindowUpdate,
}

impl Flood {
    /// `%RESPONSE_CODE_DETAILS%` of the streams that end with it.
    pub fn details(self) -> &'static str {
        match self {
            Self::EmptyFrames => "http2.inbound_empty_frames_flood",
            Self::Priority | Self::WindowUpdate => "codec_error:Too_many_frames_in_the_inbound_queue",
        }
    }
}

/// See [`Observer::next_write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextWrite {
    /// So many bytes go out.
    Some(usize),
    /// So many bytes do not.
    Skip(usize),
}

/// One connection's frames.
pub struct Observer {
    /// `http2.*`
    pub stats: Stats<Http2CodecStats>,
    limits: FloodLimits,
    server: bool,
    read: RefCell<Scanner>,
    written: RefCell<Scanner>,
    /// Streams opened, and the highest of them.
    opened: Cell<u64>,
    highest: Cell<u32>,
    /// The last stream that had DATA.
    data_stream: Cell<u32>,
    empty: Cell<u32>,
    priority: Cell<u64>,
    window_updates: Cell<u64>,
    data_sent: Cell<u64>,
    frames_read: Cell<u64>,
    flood: Cell<Option<Flood>>,
    /// Streams that the peer has reset, with its code.
    reset_by_peer: RefCell<Vec<(u32, u32)>>,
    /// Resets that this side has decided on; any other is the library's.
    ours: RefCell<HashSet<u32>>,
    /// Resets of the library because of what the peer sent.
    reset_by_library: RefCell<Vec<(u32, u32)>>,
    /// Code of the GOAWAY of the peer.
    goaway: Cell<Option<u32>>,
    /// The library's notice of a GOAWAY is not to go out: it was given before.
    noticed: Cell<bool>,
}

impl Observer {
    /// Of a connection that a client has opened.
    pub fn server(stats: Stats<Http2CodecStats>, limits: FloodLimits) -> Rc<Self> {
        Self::new(stats, limits, true)
    }

    /// Of a connection to a server.
    pub fn client(stats: Stats<Http2CodecStats>, limits: FloodLimits) -> Rc<Self> {
        Self::new(stats, limits, false)
    }

    fn new(stats: Stats<Http2CodecStats>, limits: FloodLimits, server: bool) -> Rc<Self> {
        let (read, written) = match server {
            true => (PREFACE, 0),
            false => (0, PREFACE),
        };
        Rc::new(Self {
            stats,
            limits,
            server,
            read: RefCell::new(Scanner::new(read)),
            written: RefCell::new(Scanner::new(written)),
            opened: Cell::new(0),
            highest: Cell::new(0),
            data_stream: Cell::new(0),
            empty: Cell::new(0),
            priority: Cell::new(0),
            window_updates: Cell::new(0),
            data_sent: Cell::new(0),
            frames_read: Cell::new(0),
            flood: Cell::new(None),
            reset_by_peer: RefCell::default(),
            ours: RefCell::default(),
            reset_by_library: RefCell::default(),
            goaway: Cell::new(None),
            noticed: Cell::new(false),
        })
    }

    /// Bytes came in. An error: they are a flood.
    pub fn read(&self, bytes: &[u8]) -> io::Result<()> {
        self.read.borrow_mut().feed(bytes, |frame| self.frame_read(frame));
        match self.flood.get() {
            None => Ok(()),
            Some(_) => Err(io::Error::other("flood")),
        }
    }

    /// Bytes went out.
    pub fn written(&self, bytes: &[u8]) {
        self.written.borrow_mut().feed(bytes, |frame| self.frame_written(frame));
    }

    /// Whether what was written so far ends with a whole frame.
    pub fn wrote_whole_frames(&self) -> bool {
        self.written.borrow().is_between()
    }

    /// The peer has had a notice that this side will send a GOAWAY: the library's own is left out.
    pub fn leave_out_notice(&self) {
        self.noticed.set(true);
    }

    /// Whether a notice may still come that is to be left out.
    pub fn is_leaving_out(&self) -> bool {
        self.noticed.get()
    }

    /// How much of `bytes` may be written at once, and how much is to be taken for written without that.
    pub fn next_write(&self, bytes: &[u8]) -> NextWrite {
        if !self.noticed.get() {
            return NextWrite::Some(bytes.len());
        }
        let written = self.written.borrow();
        if written.is_between() && bytes.starts_with(&NOTICE_FRAME) {
            self.noticed.set(false);
            return NextWrite::Skip(NOTICE_FRAME.len());
        }
        // Up to where the notice may begin.
        NextWrite::Some(bytes.len().min(written.ahead()))
    }

    /// The flood that ended the connection.
    pub fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    /// The code of the GOAWAY that the peer has sent.
    pub fn goaway(&self) -> Option<u32> {
        self.goaway.get()
    }

    /// The highest stream that was opened.
    pub fn highest_stream(&self) -> u32 {
        self.highest.get()
    }

    /// Whether the last DATA was this stream's.
    pub fn has_body(&self, stream: u32) -> bool {
        self.data_stream.get() == stream
    }

    /// How many frames have come so far: a peer that sends is alive.
    pub fn frames_read(&self) -> u64 {
        self.frames_read.get()
    }

    /// The reset of this stream is this side's decision.
    pub fn expect_reset(&self, stream: u32) {
        let mut ours = self.ours.borrow_mut();
        if ours.len() >= REMEMBERED {
            ours.clear();
        }
        ours.insert(stream);
    }

    /// The code with which the peer has reset a stream; told once.
    pub fn take_peer_reset(&self, stream: u32) -> Option<u32> {
        let mut resets = self.reset_by_peer.borrow_mut();
        let at = resets.iter().position(|(id, _)| *id == stream)?;
        Some(resets.swap_remove(at).1)
    }

    /// Streams that the library has reset since the last call, with its code.
    pub fn take_library_resets(&self) -> Vec<(u32, u32)> {
        match self.reset_by_library.try_borrow_mut() {
            Ok(mut resets) if !resets.is_empty() => std::mem::take(&mut *resets),
            _ => Vec::new(),
        }
    }

    fn frame_read(&self, frame: &Frame) {
        self.frames_read.set(self.frames_read.get() + 1);
        match frame.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION => {
                match frame.kind {
                    kind::HEADERS => self.headers_read(frame),
                    kind::DATA => self.data_stream.set(frame.stream),
                    _ => {}
                }
                let ends = frame.kind != kind::CONTINUATION && frame.flags & END_STREAM != 0;
                match frame.length > frame.padding || ends {
                    true => self.empty.set(0),
                    false => {
                        self.empty.set(self.empty.get() + 1);
                        if self.empty.get() > self.limits.empty_frames {
                            self.flooded(Flood::EmptyFrames);
                        }
                    }
                }
            }
            kind::PRIORITY => {
                self.priority.set(self.priority.get() + 1);
                let limit = u64::from(self.limits.priority_per_stream) * (1 + self.opened.get());
                if self.priority.get() > limit {
                    self.flooded(Flood::Priority);
                }
            }
            kind::WINDOW_UPDATE => {
                self.window_updates.set(self.window_updates.get() + 1);
                let per_data = u64::from(self.limits.window_updates_per_data);
                let limit = 5 + 2 * (self.opened.get() + per_data * self.data_sent.get());
                if self.window_updates.get() > limit {
                    self.flooded(Flood::WindowUpdate);
                }
            }
            kind::RST_STREAM => {
                self.stats.local().rx_reset.inc();
                let mut resets = self.reset_by_peer.borrow_mut();
                if resets.len() >= REMEMBERED {
                    resets.clear();
                }
                resets.push((frame.stream, frame.code));
            }
            kind::GOAWAY => self.goaway.set(Some(frame.code)),
            _ => {}
        }
    }

    fn headers_read(&self, frame: &Frame) {
        if !self.server {
            return;
        }
        if frame.stream > self.highest.get() {
            self.highest.set(frame.stream);
            self.opened.set(self.opened.get() + 1);
        } else {
            self.stats.local().trailers.inc();
        }
    }

    fn frame_written(&self, frame: &Frame) {
        match frame.kind {
            kind::DATA => self.data_sent.set(self.data_sent.get() + 1),
            kind::HEADERS if !self.server && frame.stream > self.highest.get() => {
                self.highest.set(frame.stream);
                self.opened.set(self.opened.get() + 1);
            }
            kind::RST_STREAM => {
                self.stats.local().tx_reset.inc();
                if !self.ours.borrow_mut().remove(&frame.stream) {
                    match frame.code {
                        REFUSED_STREAM => self.stats.local().stream_refused_errors.inc(),
                        code => self.reset_by_library.borrow_mut().push((frame.stream, code)),
                    }
                }
            }
            kind::GOAWAY if frame.last_stream != NOTICE && frame.code == NO_ERROR => {
                self.stats.local().goaway_sent.inc();
            }
            _ => {}
        }
    }

    fn flooded(&self, flood: Flood) {
        if self.flood.replace(Some(flood)).is_some() {
            return;
        }
        let stats = self.stats.local();
        match flood {
            Flood::EmptyFrames => stats.inbound_empty_frames_flood.inc(),
            Flood::Priority => stats.inbound_priority_frames_flood.inc(),
            Flood::WindowUpdate => stats.inbound_window_update_frames_flood.inc(),
        }
    }
}
