//! What two generations say to each other (`docs/adr/0008-hot-restart-over-a-unix-socket.md`).
//!
//! A frame is the four bytes `nhr1`, the length of what follows (32 bits, little-endian), and one protobuf message.
//! Descriptors travel with the frame's first byte. The child asks, the parent answers each request with one reply;
//! statistics may take several, all but the last with `more`.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use prost::{Message, Oneof};
use rustix::{
    io::retry_on_intr,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};

use crate::stats::ScopeValues;

/// The version of the messages: two processes of different versions do not follow each other.
pub const VERSION: u32 = 1;

/// `--hot-restart-version` and `/hot_restart_version`: two binaries that print the same may follow each other.
pub fn version_text() -> String {
    format!("{VERSION}.nuncio")
}

const MAGIC: [u8; 4] = *b"nhr1";

/// Longest frame. Statistics are cut into pieces far below it.
const MAX_FRAME: usize = 16 << 20;

/// Most descriptors of one frame; the kernel's limit is 253.
pub const MAX_DESCRIPTORS: usize = 128;

/// What the child wants.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What.
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4, 5, 6")]
    pub ask: Option<Ask>,
}

/// See [`Request`].
#[derive(Clone, PartialEq, Oneof)]
pub enum Ask {
    /// Who the child is: always the first.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// The sockets of an address.
    #[prost(message, tag = "2")]
    TakeSockets(TakeSockets),
    /// The admin's socket; the parent's admin stops accepting if its address is the same.
    #[prost(string, tag = "3")]
    TakeAdmin(String),
    /// Statistics that changed since they were last asked for.
    #[prost(bool, tag = "4")]
    Stats(bool),
    /// Stop accepting, let connections go; end by itself after so many milliseconds at the latest.
    #[prost(uint64, tag = "5")]
    Drain(u64),
    /// End now.
    #[prost(bool, tag = "6")]
    Terminate(bool),
}

/// Who the child is.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// [`VERSION`]
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// `--restart-epoch`
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// Its process id, for the parent's log.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

/// Which sockets.
#[derive(Clone, PartialEq, Message)]
pub struct TakeSockets {
    /// As the kernel has it: `127.0.0.1:80`, `[::]:80`, `/path`, `@name`.
    #[prost(string, tag = "1")]
    pub address: String,
    /// [`super::SocketKind`] as a number.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// How many the child has already: a frame carries at most [`MAX_DESCRIPTORS`].
    #[prost(uint32, tag = "3")]
    pub from: u32,
}

/// The parent's answer.
#[derive(Clone, PartialEq, Message)]
pub struct Reply {
    /// Why the request is refused; empty when it is not.
    #[prost(string, tag = "1")]
    pub refused: String,
    /// To [`Ask::Hello`].
    #[prost(message, optional, tag = "2")]
    pub hello: Option<HelloReply>,
    /// To [`Ask::TakeSockets`]: how many sockets there are in all. Their descriptors come with the frame.
    #[prost(uint32, tag = "3")]
    pub sockets: u32,
    /// To [`Ask::Stats`].
    #[prost(message, optional, tag = "4")]
    pub stats: Option<StatsReply>,
    /// Another frame belongs to this answer.
    #[prost(bool, tag = "5")]
    pub more: bool,
}

/// Who the parent is.
#[derive(Clone, PartialEq, Message)]
pub struct HelloReply {
    /// [`VERSION`]
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// When the first generation started, in milliseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub first_started: u64,
    /// `server.hot_restart_generation`
    #[prost(uint64, tag = "3")]
    pub generation: u64,
}

/// Statistics of the parent.
#[derive(Clone, PartialEq, Message)]
pub struct StatsReply {
    /// Values that changed, scope by scope.
    #[prost(message, repeated, tag = "1")]
    pub scopes: Vec<ScopeValues>,
    /// Open downstream connections.
    #[prost(uint64, tag = "2")]
    pub connections: u64,
    /// Bytes allocated.
    #[prost(uint64, tag = "3")]
    pub allocated: u64,
    /// Bytes of heap.
    #[prost(uint64, tag = "4")]
    pub heap: u64,
    /// Bytes of physical memory.
    #[prost(uint64, tag = "5")]
    pub physical: u64,
}

/// Sends a message; the time limit is the stream's.
pub fn send(stream: &UnixStream, message: &impl Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = message.encode_to_vec();
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.extend(MAGIC);
    frame.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend(body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = retry_on_intr(|| sendmsg(stream, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL))?;
    let mut rest = stream;
    rest.write_all(frame.get(sent..).unwrap_or_default())
}

/// Receives a message and the descriptors that came with it; none when the other side has closed between messages.
pub fn receive<T: Message + Default>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut head = [0u8; 8];
    let mut descriptors = Vec::new();
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = match recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(rest)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            got => got?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if got.bytes == 0 {
            return match filled {
                0 => Ok(None),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        filled += got.bytes;
    }
    let [m0, m1, m2, m3, l0, l1, l2, l3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if [m0, m1, m2, m3] != MAGIC || length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a hot restart message"));
    }
    let mut body = vec![0; length];
    let mut stream = stream;
    stream.read_exact(&mut body)?;
    let message = T::decode(body.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Some((message, descriptors)))
}
