//! The byte stream of a connection that begins with an exchange: own metadata go out before the first byte that is
//! written, or when the first bytes come; the peer's are taken off the front of what is read.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Config,
    handover::Handover,
    wire::{self, HEADER, Header, Metadata},
};
use crate::{
    extensions::common::workload::{FoundPeer, Peer},
    http::stream_info::FindingSlot,
    net::Stream,
};

/// So much is read at once while the peer's metadata are awaited.
const PART: usize = 4096;

/// Who is told of the peer.
pub(super) enum Told {
    /// Who uses the upstream connection, when it asks.
    Slot(FindingSlot),
    /// The downstream connection, before any byte goes on.
    Handover(Arc<Handover>),
}

/// Where reading stands.
enum Reading {
    /// The peer's header and metadata are awaited; so much has come.
    Metadata(Vec<u8>),
    /// The peer was found, or will not be. These bytes came behind.
    Settled(Bytes),
}

/// The stream.
pub(super) struct Exchange {
    inner: Stream,
    config: Arc<Config>,
    peer: Peer,
    /// Where the peer is, to be looked up if it tells nothing.
    instead: Option<IpAddr>,
    told: Told,
    /// What is left to be sent of own metadata.
    own: Bytes,
    /// Sending has begun.
    sending: bool,
    reading: Reading,
}

impl Exchange {
    pub(super) fn new(inner: Stream, config: Arc<Config>, peer: Peer, instead: Option<IpAddr>, told: Told) -> Self {
        Self {
            inner,
            own: config.own.clone(),
            config,
            peer,
            instead,
            told,
            sending: false,
            reading: Reading::Metadata(Vec::new()),
        }
    }

    /// Sends own metadata, or what is left of them.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sending {
            self.sending = true;
            self.config.stats.local().metadata_added.inc();
        }
        while !self.own.is_empty() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.own))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.own.advance(sent);
            if self.own.is_empty() {
                let _ = Pin::new(&mut self.inner).poll_flush(cx)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at what has come. What is behind the metadata is given on; none: more has to come.
    fn parse(&self, seen: &mut Vec<u8>, ended: bool) -> io::Result<Option<Bytes>> {
        let stats = self.config.stats.local();
        let length = match wire::header(seen) {
            Header::Of(length) => length,
            Header::TooLong => {
                stats.header_not_found.inc();
                self.tell_nothing();
                let reason = "peer metadata are too long";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Header::Short if !ended => {
                stats.initial_header_not_found.inc();
                return Ok(None);
            }
            Header::Short | Header::None => {
                stats.initial_header_not_found.inc();
                self.tell_nothing();
                return Ok(Some(std::mem::take(seen).into()));
            }
        };
        let found = match seen.get(HEADER..HEADER + length) {
            Some(metadata) => wire::metadata(metadata, &self.config.labels),
            None if !ended => return Ok(None),
            None => Metadata::Unreadable,
        };
        let after_header = Bytes::from(std::mem::take(seen)).split_off(HEADER);
        match found {
            Metadata::Unreadable => {
                stats.header_not_found.inc();
                self.tell_nothing();
                // As in Envoy, what is no metadata goes on as data.
                return Ok(Some(after_header));
            }
            Metadata::Nothing => {}
            Metadata::Of(workload) => self.tell(FoundPeer {
                peer: self.peer,
                workload: Some(Arc::new(*workload)),
            }),
        }
        Ok(Some(after_header.slice(length..)))
    }

    fn tell_nothing(&self) {
        self.tell(FoundPeer {
            peer: self.peer,
            workload: self.config.instead(self.instead),
        });
    }

    fn tell(&self, found: FoundPeer) {
        match &self.told {
            Told::Slot(slot) => slot.set(found),
            Told::Handover(handover) => handover.tell(found),
        }
    }
}

impl AsyncRead for Exchange {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.sending && !this.own.is_empty() {
            let _ = this.poll_send(cx)?;
        }
        loop {
            let mut seen = match &mut this.reading {
                Reading::Settled(behind) => {
                    if let Told::Handover(handover) = &this.told {
                        ready!(handover.poll_taken(cx));
                    }
                    if behind.is_empty() {
                        return Pin::new(&mut this.inner).poll_read(cx, buf);
                    }
                    let n = behind.len().min(buf.remaining());
                    buf.put_slice(&behind.split_to(n));
                    return Poll::Ready(Ok(()));
                }
                Reading::Metadata(seen) => {
                    let mut part = [0; PART];
                    let mut part = ReadBuf::new(&mut part);
                    ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
                    seen.extend_from_slice(part.filled());
                    let ended = part.filled().is_empty();
                    (std::mem::take(seen), ended)
                }
            };
            let (seen, ended) = (&mut seen.0, seen.1);
            if !ended {
                // Who sent something waits for an answer. What cannot go now goes with the next write or read.
                let _ = this.poll_send(cx)?;
            }
            this.reading = match this.parse(seen, ended)? {
                Some(behind) => Reading::Settled(behind),
                None => Reading::Metadata(std::mem::take(seen)),
            };
        }
    }
}

impl AsyncWrite for Exchange {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sending {
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end is something that is written, too.
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
