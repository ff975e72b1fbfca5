//! `envoy.transport_sockets.http_11_proxy`: reaches endpoints through a forward proxy, which is asked to CONNECT.
//!
//! Which proxy that is stands in the metadata of the endpoint or of its locality, or else in the configuration. The
//! bytes of the inner socket follow when the proxy has agreed.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xds_protos::{
    envoy::extensions::transport_sockets::http_11_proxy::v3::Http11ProxyUpstreamTransport as Proto,
    google::protobuf::Any,
};

use super::{ClientTransport, Host, TransportCx, TransportSocket, transport_socket::Connected};
use crate::{
    config::{BuildCx, ConfigResult, unpack},
    net::{Address, Stream, address_from_proto},
    stats::Scope,
};

/// The transport socket: a proxy, and another socket behind it.
#[derive(Debug)]
pub(super) struct Http11Proxy {
    default: Option<Address>,
    inner: TransportSocket,
}

impl Http11Proxy {
    /// Builds it with the socket it wraps; none is plain text.
    pub(super) fn build(any: &Any, scope: &Scope, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = unpack::<Proto>(any, cx)?;
        coverage!(cx, proto => Proto { supported { transport_socket, default_proxy_address } });
        Ok(Self {
            default: cx.opt("default_proxy_address", default_proxy_address, address_from_proto)?,
            inner: cx.field("transport_socket", |cx| {
                TransportSocket::build(transport_socket, scope, cx)
            })?,
        })
    }

    /// What the proxy is asked to connect to; none when it is not asked. As in Envoy, the proxy of the configuration
    /// takes plain text as it comes.
    fn target(&self, host: &Host) -> Option<String> {
        match (&self.default, host.attributes().transport.as_ref()) {
            (Some(_), _) if !self.inner.is_secure() => None,
            (Some(_), _) => Some(match (host.hostname.is_empty(), host.address.port()) {
                (false, Some(port)) => format!("{}:{port}", host.hostname),
                _ => host.address.to_string(),
            }),
            (None, Some(transport)) if transport.proxy.is_some() => Some(host.address.to_string()),
            (None, _) => None,
        }
    }
}

impl ClientTransport for Http11Proxy {
    fn connect<'a>(&'a self, stream: Stream, cx: TransportCx<'a>) -> LocalBoxFuture<'a, Connected> {
        let stream = match self.target(cx.host) {
            Some(target) => Stream::Other(Box::pin(Tunnel::new(stream, &target))),
            None => stream,
        };
        Box::pin(self.inner.connect(stream, cx))
    }

    fn inner(&self) -> Option<&TransportSocket> {
        Some(&self.inner)
    }

    fn proxy_of(&self, host: &Host) -> Option<Address> {
        let attributes = host.attributes();
        let named = attributes.transport.as_ref().and_then(|t| t.proxy.clone());
        named
            .or_else(|| self.default.clone())
            .or_else(|| self.inner.proxy_of(host))
    }
}

/// Envoy's limit of the proxy's answer.
const MAX_ANSWER: usize = 2000;

/// A stream that begins with CONNECT: nothing else is read or written before the proxy has agreed.
struct Tunnel {
    stream: Stream,
    request: Bytes,
    answer: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asking,
    Open,
    /// The proxy refused, or said what cannot be understood.
    Refused,
}

impl Tunnel {
    fn new(stream: Stream, target: &str) -> Self {
        Self {
            stream,
            request: format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into(),
            answer: Vec::new(),
            state: State::Asking,
        }
    }

    /// Asks, and waits for the answer. A refusal is the end of the stream, as if the endpoint had closed it.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.request.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.request))?;
            self.request.advance(written);
        }
        while self.state == State::Asking {
            // Byte by byte: what follows the answer is the inner socket's.
            let mut byte = [0];
            let mut buf = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
            self.answer.extend_from_slice(buf.filled());
            if self.answer.ends_with(b"\r\n\r\n") {
                self.state = match agrees(&self.answer) {
                    true => State::Open,
                    false => State::Refused,
                };
                self.answer = Vec::new();
            } else if buf.filled().is_empty() || self.answer.len() >= MAX_ANSWER {
                self.state = State::Refused;
            }
        }
        Poll::Ready(match self.state {
            State::Refused => Err(io::ErrorKind::UnexpectedEof.into()),
            State::Asking | State::Open => Ok(()),
        })
    }
}

/// Whether the answer is 200.
fn agrees(answer: &[u8]) -> bool {
    let mut words = answer.splitn(3, |b| *b == b' ');
    words.next().is_some_and(|version| version.starts_with(b"HTTP/1."))
        && words.next().is_some_and(|status| status.trim_ascii_end() == b"200")
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(cx)) {
            Ok(()) => Pin::new(&mut self.stream).poll_read(cx, buf),
            // The end, rather than an error that has no words.
            Err(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn tunnel() -> (Tunnel, tokio::io::DuplexStream) {
        let (near, far) = duplex(4096);
        (Tunnel::new(Stream::Other(Box::pin(near)), "up.test:443"), far)
    }

    #[tokio::test]
    async fn bytes_follow_when_the_proxy_agrees() {
        let (mut tunnel, mut proxy) = tunnel();
        let asked = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                seen.push(proxy.read_u8().await.unwrap());
            }
            proxy.write_all(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nfirst").await.unwrap();
            let mut sent = [0; 4];
            proxy.read_exact(&mut sent).await.unwrap();
            (seen, sent)
        });
        tunnel.write_all(b"ping").await.unwrap();
        let mut answer = [0; 5];
        tunnel.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"first");
        let (seen, sent) = asked.await.unwrap();
        assert_eq!(seen, b"CONNECT up.test:443 HTTP/1.1\r\nHost: up.test:443\r\n\r\n");
        assert_eq!(&sent, b"ping");
    }

    #[tokio::test]
    async fn a_refusal_is_the_end() {
        for answer in [
            "HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(),
            "HTTP/2 200\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(MAX_ANSWER)),
        ] {
            let (mut tunnel, mut proxy) = tunnel();
            proxy.write_all(answer.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            assert_eq!(tunnel.read_to_end(&mut read).await.unwrap(), 0, "{answer}");
            assert!(tunnel.write_all(b"ping").await.is_err());
        }
    }
}
