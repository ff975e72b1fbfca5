//! A stream of HTTP/2 that carries bytes, as CONNECT makes it: either end of HBONE.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a closed end waits for the other one to end too, before it resets the stream.
const LINGER: Duration = Duration::from_secs(2);

/// The bytes of one stream. Dropped, it says END_STREAM and waits for the peer's, as a closed socket does.
pub struct Tunnel {
    send: Option<SendStream<Bytes>>,
    recv: Option<RecvStream>,
    read: Bytes,
    ended: bool,
    shut: bool,
    reset: AtomicBool,
    /// What must live as long as the stream.
    keep: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl Tunnel {
    pub fn new(
        send: SendStream<Bytes>,
        recv: RecvStream,
        keep: Option<Box<dyn std::any::Any + Send + Sync>>,
    ) -> Tunnel {
        Tunnel {
            send: Some(send),
            recv: Some(recv),
            read: Bytes::new(),
            ended: false,
            shut: false,
            reset: AtomicBool::new(false),
            keep,
        }
    }

    /// Makes the coming drop a reset.
    pub fn arm_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let (Some(mut send), Some(mut recv)) = (self.send.take(), self.recv.take()) else {
            return;
        };
        if self.reset.load(Ordering::Relaxed) {
            send.send_reset(Reason::CANCEL);
            return;
        }
        if !self.shut {
            let _ = send.send_data(Bytes::new(), true);
        }
        let keep = self.keep.take();
        if self.ended {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let rest = async {
                    while let Some(Ok(data)) = recv.data().await {
                        let _ = recv.flow_control().release_capacity(data.len());
                    }
                };
                let _ = tokio::time::timeout(LINGER, rest).await;
                drop((send, recv, keep));
            });
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while self.read.is_empty() && !self.ended {
            let Some(recv) = self.recv.as_mut() else { break };
            match std::task::ready!(recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = recv.flow_control().release_capacity(data.len());
                    self.read = data;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Err(failure(&error)));
                }
                None => self.ended = true,
            }
        }
        let n = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..n]);
        self.read.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let Some(send) = self.send.as_mut() else {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        };
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        send.reserve_capacity(data.len());
        loop {
            if send.capacity() == 0 {
                match std::task::ready!(send.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(failure(&error))),
                    None => return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
                }
            }
            let n = send.capacity().min(data.len());
            let sent = send.send_data(Bytes::copy_from_slice(&data[..n]), false);
            return Poll::Ready(sent.map(|()| n).map_err(|e| failure(&e)));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !std::mem::replace(&mut self.shut, true)
            && let Some(send) = self.send.as_mut()
        {
            let _ = send.send_data(Bytes::new(), true);
        }
        Poll::Ready(Ok(()))
    }
}

fn failure(error: &h2::Error) -> std::io::Error {
    std::io::Error::other(crate::client::h2::error_text(error))
}
