//! The clients: requests at a steady rate over kept connections, half of them HTTP/1 and half HTTP/2, a third of them
//! with a body. What comes back is compared with what must.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::watch, task::JoinHandle, task::JoinSet};

use super::setup::SETTINGS;
use crate::client::message::{Framing, Reader};

/// How long a client waits for its whole answer: much longer than every limit of the proxies.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longest body.
const LONGEST: u64 = 20_000;

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which of [`SETTINGS`].
    pub setting: usize,
    /// `ok`, or a status and response flags, or how it broke.
    pub kind: String,
}

/// An answer that is not the request's, or poses as whole and is not.
pub const WRONG: &str = "WRONG";

/// The body of an answer: what the request brought, or bytes that no other request's answer has.
pub fn body_of(id: u64, length: usize, received: &[u8]) -> Vec<u8> {
    if received.is_empty() {
        own_bytes(id, length)
    } else {
        received.to_vec()
    }
}

fn own_bytes(id: u64, length: usize) -> Vec<u8> {
    let unit = format!("<{id:08}>");
    let mut bytes = unit.repeat(length / unit.len() + 1).into_bytes();
    bytes.truncate(length);
    bytes
}

/// Running clients.
pub struct Load {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Outcome>>,
}

impl Load {
    /// Starts to send `rate` requests a second.
    pub fn start(port: u16, rate: u32, settings: usize) -> Load {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let clients = Arc::new(Clients {
                port,
                h1: Mutex::default(),
                h2: Default::default(),
            });
            let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
            let mut running = JoinSet::new();
            let mut number = 0_u64;
            while !*stopped.borrow() {
                tick.tick().await;
                let clients = clients.clone();
                let request = Request::new(number, settings);
                running.spawn(async move { clients.send(request).await });
                number += 1;
            }
            running.join_all().await
        });
        Load { stop, task }
    }

    /// Ends it when every request has come to an end.
    pub async fn finish(&mut self) -> Vec<Outcome> {
        self.stop.send_replace(true);
        (&mut self.task).await.unwrap_or_default()
    }
}

struct Request {
    id: u64,
    setting: usize,
    h2: bool,
    path: String,
    /// Empty: GET.
    body: Vec<u8>,
    answer: Vec<u8>,
}

impl Request {
    /// The same for both proxies.
    fn new(number: u64, settings: usize) -> Request {
        let setting = (number % settings as u64) as usize;
        let round = number / settings as u64;
        let length = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % LONGEST;
        let id = number + 1;
        let body = match round % 3 {
            0 => own_bytes(id, 1 + length as usize),
            _ => Vec::new(),
        };
        Request {
            id,
            setting,
            h2: round.is_multiple_of(2),
            path: format!("/{}/{id}/{length}", SETTINGS[setting].name),
            answer: body_of(id, length as usize, &body),
            body,
        }
    }

    fn method(&self) -> &'static str {
        if self.body.is_empty() { "GET" } else { "POST" }
    }

    /// What a whole response is.
    fn kind(&self, status: u16, id: Option<&str>, body: &[u8]) -> String {
        let own = id.is_some_and(|i| i == self.id.to_string());
        match status {
            200 if own && body == self.answer => "ok".into(),
            200 => format!("{WRONG} answer: {} bytes instead of {}", body.len(), self.answer.len()),
            _ => {
                let text = String::from_utf8_lossy(body);
                match text.strip_prefix("local ") {
                    Some(flags) => format!("{status} {flags}"),
                    None => format!("{WRONG} {status} from nowhere"),
                }
            }
        }
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "a test's client: who opens a connection lets the others wait"
)]
struct Clients {
    port: u16,
    h1: Mutex<Vec<(TcpStream, Reader)>>,
    h2: [tokio::sync::Mutex<Option<SendRequest<Bytes>>>; 2],
}

impl Clients {
    async fn send(&self, request: Request) -> Outcome {
        let exchange = async {
            if request.h2 {
                self.over_h2(&request).await
            } else {
                self.over_h1(&request).await
            }
        };
        let kind = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(kind)) => kind,
            Ok(Err(broken)) => broken.into(),
            Err(_) => "never answered".into(),
        };
        Outcome {
            setting: request.setting,
            kind,
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(TcpStream, Reader)>> {
        self.h1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn over_h1(&self, request: &Request) -> Result<String, &'static str> {
        let kept = self.idle().pop();
        let (mut stream, mut reader) = match kept {
            Some(kept) => kept,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))
                    .await
                    .map_err(|_| "refused")?;
                let _ = stream.set_nodelay(true);
                (stream, Reader::default())
            }
        };
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: chaos\r\ncontent-length: {}\r\n\r\n",
            request.method(),
            request.path,
            request.body.len()
        );
        stream
            .write_all(head.as_bytes())
            .await
            .map_err(|_| "closed before the request")?;
        // A proxy may answer, and close, before it has the whole body.
        let _ = stream.write_all(&request.body).await;
        let head = reader
            .head(&mut stream)
            .await
            .ok()
            .flatten()
            .ok_or("closed without an answer")?;
        let framing = head.framing_of_response(false);
        let body = reader.body(&mut stream, &framing).await;
        if body.broken.is_some() {
            return Err("cut");
        }
        let closes = head.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        if !closes && framing != Framing::ToEnd {
            self.idle().push((stream, reader));
        }
        Ok(request.kind(head.status(), head.get("x-id"), &body.bytes))
    }

    async fn over_h2(&self, request: &Request) -> Result<String, &'static str> {
        let send = self.h2_connection(request.id).await?;
        let mut send = send.ready().await.map_err(|_| "closed before the request")?;
        let head = http::Request::builder()
            .method(request.method())
            .uri(format!("http://chaos{}", request.path))
            .body(())
            .map_err(|_| "bad request")?;
        let (response, mut body) = send
            .send_request(head, request.body.is_empty())
            .map_err(|_| "closed before the request")?;
        let upload = async {
            let mut rest = &request.body[..];
            while !rest.is_empty() {
                body.reserve_capacity(rest.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
                    return;
                };
                let (now, later) = rest.split_at(room.min(rest.len()));
                if body.send_data(Bytes::copy_from_slice(now), later.is_empty()).is_err() {
                    return;
                }
                rest = later;
            }
        };
        let download = async {
            let (head, mut body) = response.await.map_err(|_| "reset without an answer")?.into_parts();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.map_err(|_| "cut")?;
                let _ = body.flow_control().release_capacity(chunk.len());
                bytes.extend_from_slice(&chunk);
            }
            let id = head.headers.get("x-id").and_then(|v| v.to_str().ok());
            Ok(request.kind(head.status.as_u16(), id, &bytes))
        };
        tokio::pin!(upload, download);
        // The answer may come first, and then the rest of the request is of no use.
        tokio::select! {
            biased;
            kind = &mut download => kind,
            () = &mut upload => download.await,
        }
    }

    async fn h2_connection(&self, id: u64) -> Result<SendRequest<Bytes>, &'static str> {
        let mut slot = self.h2[(id % 2) as usize].lock().await;
        if let Some(send) = slot.take()
            && let Ok(send) = send.ready().await
        {
            *slot = Some(send.clone());
            return Ok(send);
        }
        let stream = TcpStream::connect(("127.0.0.1", self.port))
            .await
            .map_err(|_| "refused")?;
        let _ = stream.set_nodelay(true);
        let (send, connection) = h2::client::handshake(stream).await.map_err(|_| "refused")?;
        tokio::spawn(connection);
        *slot = Some(send.clone());
        Ok(send)
    }
}
