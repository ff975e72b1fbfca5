//! One type for every byte stream, so that codecs and copy loops are compiled once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::InternalStream;

/// What a transport socket may hand on when none of the named kinds fits.
pub trait ByteStream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> ByteStream for T {}

/// A connected byte stream, downstream or upstream.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// Plain unix socket.
    Unix(UnixStream),
    /// TLS accepted from a TCP client: the usual downstream.
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS opened over TCP: the usual upstream.
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// A connection within this process.
    Internal(InternalStream),
    /// Anything else: peeked bytes in front, TLS over unix sockets or internal connections.
    Other(Pin<Box<dyn ByteStream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Stream {
    /// Whether [`Self::readable`] is told by the kernel.
    pub fn can_wait(&self) -> bool {
        !matches!(self, Self::Internal(_) | Self::Other(_))
    }

    /// Makes the drop of the stream a reset, where the kernel has it.
    pub fn reset_on_drop(&self) {
        let socket = match self {
            Self::Tcp(s) => s,
            Self::ServerTls(s) => s.get_ref().0,
            Self::ClientTls(s) => s.get_ref().0,
            // It is one unless both sides have ended.
            Self::Internal(_) | Self::Unix(_) | Self::Other(_) => return,
        };
        // Who cannot be told by a reset is told by the end.
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }

    /// Waits until the peer has sent bytes, or closed, without a buffer to read into. Only after a read had to
    /// wait: bytes that TLS has already decrypted are not seen. At once for streams of other kinds.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
            Self::ServerTls(s) => s.get_ref().0.readable().await,
            Self::ClientTls(s) => s.get_ref().0.readable().await,
            Self::Internal(_) | Self::Other(_) => Ok(()),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $s:ident => $call:expr, $o:ident => $other:expr) => {
        match $self.get_mut() {
            Stream::Tcp($s) => $call,
            Stream::Unix($s) => $call,
            Stream::ServerTls($s) => $call,
            Stream::ClientTls($s) => $call,
            Stream::Internal($s) => $call,
            Stream::Other($o) => $other,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_read(cx, buf), o => o.as_mut().poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, s => Pin::new(s).poll_write(cx, buf), o => o.as_mut().poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, s => Pin::new(s).poll_write_vectored(cx, bufs), o => o.as_mut().poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(s) => s.is_write_vectored(),
            Self::Unix(s) => s.is_write_vectored(),
            Self::ServerTls(s) => s.is_write_vectored(),
            Self::ClientTls(s) => s.is_write_vectored(),
            Self::Internal(s) => s.is_write_vectored(),
            Self::Other(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_flush(cx), o => o.as_mut().poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_shutdown(cx), o => o.as_mut().poll_shutdown(cx))
    }
}
