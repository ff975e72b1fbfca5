//! A connection just accepted: bytes that can be looked at before anybody takes them.

use std::{io, net::SocketAddr, os::fd::AsFd};

use rustix::{
    buffer::spare_capacity,
    net::{RecvFlags, recv},
};
use tokio::{
    io::{Interest, Ready},
    net::{TcpStream, UnixStream},
};

use crate::{
    net::{Address, Stream},
    server::InternalConnection,
};

/// A socket just accepted.
pub enum Accepted {
    /// TCP, with its peer.
    Tcp(TcpStream, SocketAddr),
    /// Unix, with the listener's address.
    Unix(UnixStream, Address),
    /// Of this process, to an internal listener.
    Internal(InternalConnection),
}

impl Accepted {
    /// Waits until more than `seen` bytes have come, and gives all of them as far as `limit`. They stay where they are.
    /// No more than `seen` bytes: no more will come, or the limit is reached.
    pub async fn peek(&mut self, seen: usize, limit: usize) -> io::Result<Vec<u8>> {
        if let Self::Internal(connection) = self {
            return connection.stream.peek(seen, limit).await;
        }
        // A client's first packet, or twice what was not enough.
        let mut bytes = Vec::with_capacity((seen * 2).max(512).min(limit.max(1)));
        loop {
            let ready = self.ready().await?;
            let looked = match self {
                Self::Tcp(s, _) => s.try_io(Interest::READABLE, || look(s, &mut bytes, seen, limit)),
                Self::Unix(s, _) => s.try_io(Interest::READABLE, || look(s, &mut bytes, seen, limit)),
                Self::Internal(_) => Ok(()),
            };
            match looked {
                // What was seen keeps a socket readable for the kernel; saying that it would block makes the
                // reactor wait for the next bytes.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !ready.is_read_closed() => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.end().map(|()| bytes),
                Err(e) => return Err(e),
                Ok(()) => return Ok(bytes),
            }
        }
    }

    /// How it ended: an error when it was reset.
    fn end(&self) -> io::Result<()> {
        let error = match self {
            Self::Tcp(s, _) => s.take_error()?,
            Self::Unix(s, _) => s.take_error()?,
            Self::Internal(_) => None,
        };
        error.map_or(Ok(()), Err)
    }

    /// Takes bytes that were seen off the socket.
    pub async fn take(&mut self, mut length: usize) -> io::Result<()> {
        if let Self::Internal(connection) = self {
            connection.stream.take(length);
            return Ok(());
        }
        let mut sink = [0_u8; 1024];
        while length > 0 {
            self.ready().await?;
            let want = sink.get_mut(..length.min(1024)).unwrap_or_default();
            let taken = match self {
                Self::Tcp(s, _) => s.try_read(want),
                Self::Unix(s, _) => s.try_read(want),
                Self::Internal(_) => return Ok(()),
            };
            match taken {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => length -= n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The connection, for whoever serves it.
    pub fn into_stream(self) -> Stream {
        match self {
            Self::Tcp(s, _) => Stream::Tcp(s),
            Self::Unix(s, _) => Stream::Unix(s),
            Self::Internal(c) => Stream::Internal(c.stream),
        }
    }

    async fn ready(&self) -> io::Result<Ready> {
        match self {
            Self::Tcp(s, _) => s.ready(Interest::READABLE).await,
            Self::Unix(s, _) => s.ready(Interest::READABLE).await,
            Self::Internal(_) => Ok(Ready::READABLE),
        }
    }
}

fn look(socket: &impl AsFd, bytes: &mut Vec<u8>, seen: usize, limit: usize) -> io::Result<()> {
    loop {
        bytes.clear();
        recv(socket, spare_capacity(bytes), RecvFlags::PEEK)?;
        match bytes.len() {
            n if n == bytes.capacity() && n < limit => bytes.reserve(n * 2),
            n if n <= seen && n < limit => return Err(io::ErrorKind::WouldBlock.into()),
            _ => {
                bytes.truncate(limit);
                return Ok(());
            }
        }
    }
}
