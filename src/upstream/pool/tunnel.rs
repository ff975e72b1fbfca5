//! Bytes through a tunnel: CONNECT, or POST, over a pooled connection (`tunneling_config`).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Version};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf, duplex, split},
    sync::oneshot,
};

use super::{Lease, UpstreamBody, UpstreamConnInfo, io::Upgraded};
use crate::{
    http::{
        Body, BodyError, RequestHead, ResponseHead,
        codec::{TunnelEnd, TunnelState},
    },
    net::Stream,
    upstream::UpstreamFailure,
};

/// What waits in each direction of a POST over HTTP/1, whose bytes are framed.
const PIPE: usize = 64 * 1024;

/// So much is read at once.
const PART: usize = 16 * 1024;

/// A tunnel that the upstream has opened.
pub struct OpenTunnel {
    /// Its bytes.
    pub stream: Stream,
    /// The answer.
    pub head: ResponseHead,
    /// The connection, which other tunnels may share.
    pub conn: Arc<UpstreamConnInfo>,
    /// How it ends.
    pub end: Arc<TunnelEnd>,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelFailure {
    /// The upstream's answer is another one.
    #[error("refused: {}", .0.status)]
    Refused(Box<ResponseHead>),
    /// There is no answer.
    #[error(transparent)]
    Failed(#[from] UpstreamFailure),
}

impl Lease {
    /// Opens a tunnel by a CONNECT or a POST, and waits for the answer: any 2xx over HTTP/1, 200 over HTTP/2, and more to
    /// come. Dropping the future resets the stream.
    pub async fn tunnel(self, head: RequestHead) -> Result<OpenTunnel, TunnelFailure> {
        let http1 = self.conn().protocol < Version::HTTP_2;
        if http1 && head.method != Method::CONNECT {
            return self.post(head).await;
        }
        let response = self.send_as(head, Body::Empty, &mut |_| {}, true).await?;
        let Some(upgrade) = response.upgrade else {
            return Err(TunnelFailure::Refused(Box::new(response.head)));
        };
        Ok(OpenTunnel {
            stream: upgrade.await.ok_or(UpstreamFailure::ConnectionTermination)?,
            head: response.head,
            conn: response.conn,
            end: response.tunnel.unwrap_or_default(),
        })
    }

    /// A request and a response whose bodies are the bytes.
    async fn post(self, head: RequestHead) -> Result<OpenTunnel, TunnelFailure> {
        let (near, far) = duplex(PIPE);
        let (from_client, to_client) = split(far);
        let (sending, sent) = oneshot::channel();
        let body = Body::boxed(Upload(from_client, sending));
        let response = self.send_as(head, body, &mut |_| {}, true).await?;
        if !response.head.status.is_success() || response.body.is_end_stream() {
            return Err(TunnelFailure::Refused(Box::new(response.head)));
        }
        let end = Arc::<TunnelEnd>::default();
        let (open, closed) = oneshot::channel();
        tokio::task::spawn_local(download(response.body, to_client, closed, sent, end.clone()));
        Ok(OpenTunnel {
            stream: Stream::Other(Box::pin(Upgraded {
                head: Bytes::new(),
                stream: near,
                end: end.clone(),
                _counted: open,
            })),
            head: response.head,
            conn: response.conn,
            end,
        })
    }
}

/// What the client says, as a body, and the sign that it is out or given up.
struct Upload(ReadHalf<DuplexStream>, #[allow(dead_code)] oneshot::Sender<()>);

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut part = vec![0; PART];
        let mut room = ReadBuf::new(&mut part);
        // A pipe within the process does not fail.
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, &mut room));
        let n = room.filled().len();
        Poll::Ready(match read {
            Ok(()) if n > 0 => {
                part.truncate(n);
                Some(Ok(Frame::data(part.into())))
            }
            _ => None,
        })
    }
}

/// Hands on what the upstream says, until either side is gone. As in Envoy, the client's end is that of both sides.
async fn download(
    mut body: UpstreamBody,
    mut to: WriteHalf<DuplexStream>,
    closed: oneshot::Receiver<()>,
    sent: oneshot::Receiver<()>,
    end: Arc<TunnelEnd>,
) {
    let (pipe, end) = (&mut to, &end);
    let copying = async move {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                end.set(TunnelState::Broken);
                break;
            };
            match frame.into_data() {
                Ok(data) => {
                    if pipe.write_all(&data).await.is_err() {
                        break;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        end.set_trailers(trailers);
                    }
                }
            }
        }
    };
    tokio::select! {
        biased;
        _ = closed => {}
        () = copying => {}
        _ = sent => {}
    }
    // Nobody is there to mind.
    let _ = to.shutdown().await;
}
