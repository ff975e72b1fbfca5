//! HTTP/2 frame by frame, by hand: what no library would send, and what a library keeps to itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::case::Headers;
use crate::text;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];
const SETTINGS: [&str; 9] = [
    "",
    "HEADER_TABLE_SIZE",
    "ENABLE_PUSH",
    "MAX_CONCURRENT_STREAMS",
    "INITIAL_WINDOW_SIZE",
    "MAX_FRAME_SIZE",
    "MAX_HEADER_LIST_SIZE",
    "",
    "ENABLE_CONNECT_PROTOCOL",
];

/// One step of a scripted connection. `stream` is 1 unless it is said; a step does one thing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Frame {
    pub stream: Option<u32>,
    /// END_STREAM of `headers` and `data`.
    pub end: bool,
    /// HEADERS. Of a client, pseudo-headers that are not given are those of `GET http://example.test/`.
    pub headers: Option<Headers>,
    /// No pseudo-headers are added: trailers, malformed requests.
    pub bare: bool,
    /// The header block goes out in pieces of so many bytes: HEADERS, then CONTINUATION.
    pub split: Option<usize>,
    /// The last piece does not say that it is the last.
    pub open: bool,
    pub data: Option<String>,
    /// Bytes of padding of `data`.
    pub pad: Option<u8>,
    /// RST_STREAM with this code.
    pub rst: Option<String>,
    pub settings: Option<BTreeMap<String, u32>>,
    /// WINDOW_UPDATE; stream 0 is the connection.
    pub window: Option<u32>,
    pub ping: bool,
    pub goaway: Option<String>,
    /// Last stream of `goaway`; default 0.
    pub last: Option<u32>,
    pub priority: bool,
    /// A frame of this type with `payload` (hexadecimal) and `flags`.
    pub kind: Option<u8>,
    pub flags: u8,
    pub payload: String,
    /// Bytes that are no frame.
    pub raw: Option<String>,
    /// Plays `frames` so often; `stream` is added 2 to each time.
    pub repeat: Option<u32>,
    pub frames: Vec<Frame>,
    /// Wait for the head of these streams' messages.
    pub await_headers: Vec<u32>,
    /// Wait until these streams have ended.
    pub await_end: Vec<u32>,
    /// Wait for so many bytes of the stream's body.
    pub await_data: Option<usize>,
    pub await_goaway: bool,
    pub await_close: bool,
    /// Wait for the answer to all PINGs so far.
    pub await_pong: bool,
    /// Wait until the upstream has seen so many requests.
    pub seen: BTreeMap<String, usize>,
    /// Wait until the proxy's stats have reached these values.
    pub stat: BTreeMap<String, u64>,
    /// Wait until the proxy's gauges have these values, which they may come down to.
    pub gauge: BTreeMap<String, u64>,
    /// Puts new files in place below `{{dir}}` first.
    pub write: BTreeMap<String, String>,
    /// POST to the admin port first.
    pub admin: Option<String>,
    /// Last resort, in seconds.
    pub pause: Option<f64>,
    /// Do not open windows for what comes in from here on.
    pub hold: bool,
    /// Record SETTINGS too.
    pub show_settings: bool,
    /// Of a connection that the proxy ends nothing else is told: Envoy does so without a word.
    pub brief: bool,
    pub close: bool,
}

#[derive(Default)]
struct Stream {
    messages: Vec<Value>,
    body: Vec<u8>,
    trailers: Option<Value>,
    end: Option<String>,
}

/// One end of a connection.
pub struct Peer<T> {
    io: T,
    server: bool,
    hpack: loona_hpack::Decoder<'static>,
    read: VecDeque<u8>,
    block: Vec<u8>,
    streams: BTreeMap<u32, Stream>,
    goaways: Vec<String>,
    settings: Option<Value>,
    closed: Option<String>,
    pings: usize,
    pongs: usize,
    hold: bool,
    show_settings: bool,
    brief: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    /// Begins with the preface and empty SETTINGS, unless the script starts with its own `settings` or `raw`.
    pub async fn new(io: T, server: bool, script: &[Frame]) -> Self {
        let mut peer = Self {
            io,
            server,
            hpack: loona_hpack::Decoder::new(),
            read: VecDeque::new(),
            block: Vec::new(),
            streams: BTreeMap::new(),
            goaways: Vec::new(),
            settings: None,
            closed: None,
            pings: 0,
            pongs: 0,
            hold: false,
            show_settings: false,
            brief: false,
        };
        let own = script.first().is_some_and(|f| f.settings.is_some() || f.raw.is_some());
        if server {
            let mut preface = [0; PREFACE.len()];
            if let Err(error) = peer.io.read_exact(&mut preface).await {
                peer.closed = Some(crate::client::message::io_error(&error));
            }
        } else if script.first().is_none_or(|f| f.raw.is_none()) {
            peer.write(PREFACE).await;
        }
        if !own {
            peer.send(4, 0, 0, &[]).await;
        }
        peer
    }

    /// Plays one step; `seen` and `stat` are the harness's to wait for. Streams are numbered `shift` higher.
    pub async fn play(&mut self, step: &Frame, shift: u32) {
        let stream = step.stream.unwrap_or(1) + if step.stream == Some(0) { 0 } else { shift };
        self.hold |= step.hold;
        self.show_settings |= step.show_settings;
        self.brief |= step.brief;
        if let Some(raw) = &step.raw {
            self.write(&text::to_bytes(raw)).await;
        }
        if let Some(settings) = &step.settings {
            let mut payload = Vec::new();
            for (name, value) in settings {
                let id = SETTINGS.iter().position(|n| n == name).unwrap_or(0xff) as u16;
                payload.extend_from_slice(&id.to_be_bytes());
                payload.extend_from_slice(&value.to_be_bytes());
            }
            self.send(4, 0, 0, &payload).await;
        }
        if let Some(headers) = &step.headers {
            self.send_headers(step, stream, headers).await;
        }
        if let Some(data) = &step.data {
            let mut payload = text::to_bytes(data);
            let mut flags = u8::from(step.end);
            if let Some(pad) = step.pad {
                flags |= 8;
                payload.insert(0, pad);
                payload.resize(payload.len() + usize::from(pad), 0);
            }
            if payload.is_empty() {
                self.send(0, flags, stream, &[]).await;
            }
            let count = payload.chunks(16384).count();
            for (i, part) in payload.chunks(16384).enumerate() {
                let flags = if i + 1 == count { flags } else { 0 };
                self.send(0, flags, stream, part).await;
            }
        }
        if let Some(code) = &step.rst {
            self.send(3, 0, stream, &number(code).to_be_bytes()).await;
        }
        if let Some(window) = step.window {
            self.send(8, 0, stream, &window.to_be_bytes()).await;
        }
        if step.ping {
            self.pings += 1;
            self.send(6, 0, 0, b"nuncio!!").await;
        }
        if let Some(code) = &step.goaway {
            let mut payload = step.last.unwrap_or(0).to_be_bytes().to_vec();
            payload.extend_from_slice(&number(code).to_be_bytes());
            self.send(7, 0, 0, &payload).await;
        }
        if step.priority {
            self.send(2, 0, stream, &[0, 0, 0, 0, 15]).await;
        }
        if let Some(kind) = step.kind {
            self.send(kind, step.flags, stream, &text::from_hex(&step.payload))
                .await;
        }
        for i in 0..step.repeat.unwrap_or(u32::from(!step.frames.is_empty())) {
            for frame in &step.frames {
                Box::pin(self.play(frame, shift + 2 * i)).await;
            }
        }
        self.waits(step, stream).await;
        if let Some(seconds) = step.pause {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }

    async fn waits(&mut self, step: &Frame, stream: u32) {
        for id in &step.await_headers {
            while self.closed.is_none()
                && self
                    .streams
                    .get(id)
                    .is_none_or(|s| s.messages.is_empty() && s.end.is_none())
            {
                self.frame().await;
            }
        }
        for id in &step.await_end {
            while self.closed.is_none() && self.streams.get(id).is_none_or(|s| s.end.is_none()) {
                self.frame().await;
            }
        }
        if let Some(n) = step.await_data {
            while self.closed.is_none()
                && self
                    .streams
                    .get(&stream)
                    .is_none_or(|s| s.body.len() < n && s.end.is_none())
            {
                self.frame().await;
            }
        }
        while step.await_pong && self.closed.is_none() && self.pongs < self.pings {
            self.frame().await;
        }
        while step.await_goaway && self.closed.is_none() && self.goaways.is_empty() {
            self.frame().await;
        }
        while step.await_close && self.closed.is_none() {
            self.frame().await;
        }
    }

    /// Waits until the other side has seen all that was sent.
    pub async fn settle(&mut self) {
        self.pings += 1;
        self.send(6, 0, 0, b"settle!!").await;
        while self.closed.is_none() && self.pongs < self.pings {
            self.frame().await;
        }
    }

    /// Reads one frame; false once the connection is closed.
    pub async fn read(&mut self) -> bool {
        self.frame().await;
        self.closed.is_none()
    }

    /// What came.
    pub fn outcome(&self) -> Value {
        if self.brief && self.closed.is_some() {
            return json!({"closed": true});
        }
        let mut streams = Map::new();
        for (id, stream) in &self.streams {
            let mut value = Map::new();
            if let Some((last, before)) = stream.messages.split_last() {
                if !before.is_empty() {
                    let before: Vec<Value> = before.iter().map(|h| json!({ "headers": h })).collect();
                    value.insert("informational".into(), before.into());
                }
                value.insert("headers".into(), last.clone());
            }
            if !stream.body.is_empty() {
                value.insert("body".into(), text::show(&stream.body).into());
            }
            if let Some(trailers) = &stream.trailers {
                value.insert("trailers".into(), trailers.clone());
            }
            value.insert("end".into(), stream.end.clone().into());
            streams.insert(id.to_string(), value.into());
        }
        let mut outcome = json!({"streams": streams, "closed": self.closed});
        if !self.goaways.is_empty() {
            outcome["goaway"] = self.goaways.clone().into();
        }
        if let Some(settings) = &self.settings {
            outcome["settings"] = settings.clone();
        }
        outcome
    }

    async fn send_headers(&mut self, step: &Frame, stream: u32, headers: &Headers) {
        let mut all: Vec<(String, String)> = Vec::new();
        if !step.bare && !self.server {
            for (name, value) in [
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "example.test"),
            ] {
                if !headers.0.iter().any(|(n, _)| n == name) {
                    all.push((name.into(), value.into()));
                }
            }
        }
        // A pseudo-header after a header is for `bare` to send.
        let (pseudo, rest): (Vec<_>, Vec<_>) = match step.bare {
            true => (headers.0.clone(), Vec::new()),
            false => headers.0.iter().cloned().partition(|(n, _)| n.starts_with(':')),
        };
        all.extend(pseudo);
        all.extend(rest);
        let mut block = Vec::new();
        for (name, value) in &all {
            literal(&mut block, name, value);
        }
        let size = step.split.unwrap_or(16384).max(1);
        let count = block.chunks(size).count();
        for (i, part) in block.chunks(size).enumerate() {
            let mut flags = if i == 0 { u8::from(step.end) } else { 0 };
            if i + 1 == count && !step.open {
                flags |= 4;
            }
            self.send(if i == 0 { 1 } else { 9 }, flags, stream, part).await;
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.write(&frame).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        // A broken connection shows when it is read.
        let _ = self.io.write_all(bytes).await;
    }

    /// Takes one frame in.
    async fn frame(&mut self) {
        let Some(head) = self.take(9).await else { return };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let Some(payload) = self.take(length).await else { return };
        let word = |at: usize| {
            payload
                .get(at..at + 4)
                .map_or(0, |b| b.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)))
        };
        match kind {
            0 => {
                let stream = self.streams.entry(id).or_default();
                stream.body.extend_from_slice(&payload);
                if flags & 1 != 0 {
                    stream.end = Some("END_STREAM".into());
                }
                if !self.hold && !payload.is_empty() {
                    let n = (payload.len() as u32).to_be_bytes();
                    self.send(8, 0, 0, &n).await;
                    if flags & 1 == 0 {
                        self.send(8, 0, id, &n).await;
                    }
                }
            }
            1 | 9 => {
                self.block.extend_from_slice(&payload);
                let stream = self.streams.entry(id).or_default();
                if kind == 1 && flags & 1 != 0 {
                    stream.end = Some("END_STREAM".into());
                }
                if flags & 4 != 0 {
                    let headers = self.hpack.decode(&self.block);
                    self.block.clear();
                    let headers = headers.map(|h| map(&h)).unwrap_or_else(|e| format!("{e:?}").into());
                    match headers.get(":status").is_some() || headers.get(":method").is_some() {
                        true => stream.messages.push(headers),
                        false => stream.trailers = Some(headers),
                    }
                }
            }
            3 => self.streams.entry(id).or_default().end = Some(format!("reset {}", name(word(0)))),
            4 if flags & 1 == 0 => {
                if self.show_settings {
                    let pairs = payload.chunks_exact(6).map(|p| {
                        let id = usize::from(p[0]) << 8 | usize::from(p[1]);
                        let known = SETTINGS.get(id).filter(|n| !n.is_empty());
                        let value = p[2..].iter().fold(0u32, |w, b| w << 8 | u32::from(*b));
                        (known.map_or_else(|| id.to_string(), |n| (*n).to_owned()), value.into())
                    });
                    self.settings = Some(Value::Object(pairs.collect()));
                }
                self.send(4, 1, 0, &[]).await;
            }
            6 if flags & 1 == 0 => self.send(6, 1, 0, &payload).await,
            6 => self.pongs += 1,
            7 => {
                let last = word(0) & 0x7fff_ffff;
                let last = if last == 0x7fff_ffff {
                    "all".into()
                } else {
                    last.to_string()
                };
                self.goaways.push(format!("{} after {last}", name(word(4))));
            }
            _ => {}
        }
    }

    async fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.read.len() < n {
            let mut chunk = [0; 16384];
            match self.io.read(&mut chunk).await {
                Ok(0) => {
                    self.closed = Some("closed".into());
                    return None;
                }
                Ok(n) => self.read.extend(&chunk[..n]),
                Err(error) => {
                    // Whether the last bytes of this side still met somebody is a matter of time.
                    let how = crate::client::message::io_error(&error);
                    self.closed = Some(if how == "reset" { "closed".into() } else { how });
                    return None;
                }
            }
        }
        Some(self.read.drain(..n).collect())
    }
}

fn map(headers: &[(Vec<u8>, Vec<u8>)]) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        let list = map.entry(text::show(name)).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(text::show(value).into());
        }
    }
    Value::Object(map)
}

/// A header without indexing and without Huffman's code.
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        let bytes = text::to_bytes(text);
        length(block, bytes.len());
        block.extend_from_slice(&bytes);
    }
}

fn length(block: &mut Vec<u8>, n: usize) {
    if n < 127 {
        block.push(n as u8);
        return;
    }
    block.push(127);
    let mut rest = n - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn number(code: &str) -> u32 {
    match CODES.iter().position(|c| *c == code) {
        Some(at) => at as u32,
        None => code.parse().unwrap_or(0xff),
    }
}

fn name(code: u32) -> String {
    CODES
        .get(code as usize)
        .map_or_else(|| code.to_string(), |c| (*c).to_owned())
}
