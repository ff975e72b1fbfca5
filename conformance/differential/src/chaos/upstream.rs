//! A backend whose mood changes while it serves.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::load::body_of;
use crate::client::message::Reader;

/// What a backend does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mood {
    /// Answers.
    Well,
    /// Its connections are reset, and nobody listens.
    Killed,
    /// Its connections are closed in an orderly way, and nobody listens.
    Gone,
    /// Takes requests and never answers.
    Hung,
    /// Answers after a while.
    Slow,
    /// Resets the connection (HTTP/2: the stream) as soon as there is a request, before its body is read.
    ResetEarly,
    /// Resets within the head.
    ResetInHead,
    /// Resets within the body.
    ResetInBody,
    /// Closes within the body.
    CloseInBody,
    /// Ends its half of the connection instead of answering.
    HalfClose,
    /// Answers, and closes the connection without having said so.
    CloseAfter,
    /// Answers what is no HTTP.
    Garbage,
}

impl Mood {
    /// All but one.
    pub const EVIL: [Mood; 11] = [
        Mood::Killed,
        Mood::Gone,
        Mood::Hung,
        Mood::Slow,
        Mood::ResetEarly,
        Mood::ResetInHead,
        Mood::ResetInBody,
        Mood::CloseInBody,
        Mood::HalfClose,
        Mood::CloseAfter,
        Mood::Garbage,
    ];

    fn listens(self) -> bool {
        !matches!(self, Mood::Killed | Mood::Gone)
    }
}

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(700);

/// A backend; it ends when it is dropped.
pub struct Backend {
    pub port: u16,
    h2: bool,
    mood: watch::Sender<Mood>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Backend {
    pub async fn start(h2: bool) -> Result<Backend> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mut backend = Backend {
            port: listener.local_addr()?.port(),
            h2,
            mood: watch::channel(Mood::Well).0,
            task: None,
        };
        backend.serve(listener);
        Ok(backend)
    }

    fn serve(&mut self, listener: TcpListener) {
        self.task = Some(tokio::spawn(accept(listener, self.h2, self.mood.subscribe())));
    }

    /// Changes the mood, and with it whether anybody listens.
    pub async fn set(&mut self, mood: Mood) -> Result<()> {
        self.mood.send_replace(mood);
        if !mood.listens() {
            if let Some(task) = self.task.take() {
                // It has seen the mood and ends.
                let _ = task.await;
            }
        } else if self.task.is_none() {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket
                .bind(([127, 0, 0, 1], self.port).into())
                .context("its port was taken")?;
            self.serve(socket.listen(1024)?);
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, h2: bool, mut mood: watch::Receiver<Mood>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(stream, h2, mood.clone()));
            }
            Ok(()) = mood.changed() => {
                if !mood.borrow_and_update().listens() {
                    break;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves until the other side is done, or there is no living on.
async fn connection(stream: TcpStream, h2: bool, mut mood: watch::Receiver<Mood>) {
    let watching = mood.clone();
    let stream = Arc::new(stream);
    let end = async {
        let _ = mood.wait_for(|m| !m.listens()).await;
    };
    tokio::select! {
        () = serve(&stream, h2, watching.clone()) => {}
        () = end => {}
    }
    if *watching.borrow() == Mood::Killed {
        let _ = stream.set_zero_linger();
    }
}

async fn serve(stream: &Arc<TcpStream>, h2: bool, mood: watch::Receiver<Mood>) {
    if h2 {
        if *mood.borrow() == Mood::Garbage {
            let _ = Shared(stream.clone())
                .write_all(b"this is no HTTP/2 at all, not even a little\r\n\r\n")
                .await;
            return;
        }
        serve_h2(Shared(stream.clone()), mood).await;
    } else {
        serve_h1(Shared(stream.clone()), mood).await;
    }
}

/// Id of the request and length of the answer: `/setting/ID/LENGTH`.
fn wanted(path: &str) -> (u64, usize) {
    let mut parts = path.split('/').skip(2);
    let mut next = || parts.next().and_then(|p| p.parse::<u64>().ok()).unwrap_or(0);
    (next(), next() as usize)
}

async fn serve_h1(mut io: Shared, mood: watch::Receiver<Mood>) {
    let mut reader = Reader::default();
    loop {
        let Ok(Some(head)) = reader.head(&mut io).await else {
            return;
        };
        if *mood.borrow() == Mood::ResetEarly {
            let _ = io.0.set_zero_linger();
            return;
        }
        let body = reader.body(&mut io, &head.framing_of_request()).await;
        if body.broken.is_some() {
            return;
        }
        let mood = *mood.borrow();
        let (id, length) = wanted(head.first.split(' ').nth(1).unwrap_or_default());
        let answer = body_of(id, length, &body.bytes);
        let text = format!(
            "HTTP/1.1 200 OK\r\nx-id: {id}\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let (first, then): (&[u8], Then) = match mood {
            Mood::Hung => {
                let _ = reader.wait_end(&mut io).await;
                return;
            }
            Mood::HalfClose => {
                let _ = io.shutdown().await;
                let _ = reader.wait_end(&mut io).await;
                return;
            }
            Mood::Garbage => (b"\x16\x03\x01 what is this?\r\n\r\n", Then::Close),
            Mood::ResetInHead => (&text.as_bytes()[..text.len() / 2], Then::Reset),
            Mood::ResetInBody => (text.as_bytes(), Then::Reset),
            Mood::CloseInBody => (text.as_bytes(), Then::Close),
            _ => (text.as_bytes(), Then::Go),
        };
        if mood == Mood::Slow {
            tokio::time::sleep(SLOW).await;
        }
        let rest = match mood {
            Mood::ResetInBody | Mood::CloseInBody => &answer[..answer.len() / 2],
            Mood::ResetInHead | Mood::Garbage => &[],
            _ => &answer[..],
        };
        if io.write_all(first).await.is_err() || io.write_all(rest).await.is_err() {
            return;
        }
        match then {
            Then::Reset => {
                // What was written must not be overtaken.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = io.0.set_zero_linger();
                return;
            }
            Then::Close => return,
            Then::Go if mood == Mood::CloseAfter => return,
            Then::Go => {}
        }
    }
}

enum Then {
    Go,
    Close,
    Reset,
}

async fn serve_h2(io: Shared, mood: watch::Receiver<Mood>) {
    let Ok(mut connection) = h2::server::handshake(io.clone()).await else {
        return;
    };
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let now = *mood.borrow();
        match now {
            Mood::ResetInHead => {
                let _ = io.0.set_zero_linger();
                return;
            }
            Mood::HalfClose | Mood::Garbage => return,
            _ => {}
        }
        streams.spawn(stream_h2(request, respond, now));
        if now == Mood::CloseAfter {
            connection.graceful_shutdown();
        }
    }
}

async fn stream_h2(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    mood: Mood,
) -> Option<()> {
    if mood == Mood::ResetEarly {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return None;
    }
    let (id, length) = wanted(request.uri().path());
    let mut incoming = request.into_body();
    let mut received = Vec::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk.ok()?;
        let _ = incoming.flow_control().release_capacity(chunk.len());
        received.extend_from_slice(&chunk);
    }
    match mood {
        Mood::Hung => {
            // Until the proxy gives up.
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            return None;
        }
        Mood::Slow => tokio::time::sleep(SLOW).await,
        _ => {}
    }
    let answer = body_of(id, length, &received);
    let head = http::Response::builder()
        .header("x-id", id)
        .header("content-length", answer.len())
        .body(())
        .ok()?;
    let mut body = respond.send_response(head, false).ok()?;
    let half = matches!(mood, Mood::ResetInBody | Mood::CloseInBody);
    let part = if half { &answer[..answer.len() / 2] } else { &answer[..] };
    send(&mut body, part, !half).await?;
    if half {
        tokio::time::sleep(Duration::from_millis(20)).await;
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    Some(())
}

/// Sends as the window allows.
async fn send(body: &mut h2::SendStream<Bytes>, mut data: &[u8], end: bool) -> Option<()> {
    if data.is_empty() && end {
        return body.send_data(Bytes::new(), true).ok();
    }
    while !data.is_empty() {
        body.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await?.ok()?;
        let (now, later) = data.split_at(room.min(data.len()));
        body.send_data(Bytes::copy_from_slice(now), end && later.is_empty())
            .ok()?;
        data = later;
    }
    Some(())
}

/// A stream that can be reset by somebody who does not own it.
#[derive(Clone)]
struct Shared(Arc<TcpStream>);

impl tokio::io::AsyncRead for Shared {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return std::task::Poll::Ready(Err(e)),
            }
        }
    }
}

impl tokio::io::AsyncWrite for Shared {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        loop {
            std::task::ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(data) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return std::task::Poll::Ready(other),
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let ended = socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write);
        std::task::Poll::Ready(ended)
    }
}
