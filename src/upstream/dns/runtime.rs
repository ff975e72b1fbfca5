//! The sockets of queries: those of Tokio, but connected, so that a name server where nobody listens is known to be
//! down at once instead of after a timeout.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider};
use tokio::{io::Interest, net::UdpSocket};

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Runtime(TokioRuntimeProvider);

type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

impl RuntimeProvider for Runtime {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = Connected;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pending<'static, Self::Tcp> {
        self.0.connect_tcp(server, bind, timeout)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Pending<'static, Self::Udp> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Connected(socket))
        })
    }
}

/// A socket of one query.
pub(super) struct Connected(UdpSocket);

impl Connected {
    /// The answer, or the word that nobody listens there, which wakes nobody who only waits to read.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            match self.0.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if ready.is_error() {
                if let Some(error) = self.0.take_error()? {
                    return Err(error);
                }
                // There was none: wait for the next one.
                let none = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = self.0.try_io(Interest::ERROR, none);
            }
        }
    }
}

impl DnsUdpSocket for Connected {
    type Time = <TokioRuntimeProvider as RuntimeProvider>::Timer;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.0, cx, buffer)
    }

    fn recv_from<'a, 'b, 'f>(&'a self, buffer: &'b mut [u8]) -> Pending<'f, (usize, SocketAddr)>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        Box::pin(self.receive(buffer))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buffer: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.0, cx, buffer, to)
    }
}
