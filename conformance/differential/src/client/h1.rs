//! Requests over HTTP/1: one at a time, or a connection played step by step.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::Target;
use super::connect::Io;
use super::message::{Framing, Head, Reader, headers_value};
use crate::case::{RequestFields, Step};
use crate::{proxy, text};

/// One client connection.
pub struct Connection {
    io: Io,
    reader: Reader,
    about: Option<Value>,
    /// Bodies are looked into, so a checksum will not do.
    whole_bodies: bool,
}

impl Connection {
    pub fn new(io: Io, about: Option<Value>) -> Connection {
        Connection {
            io,
            reader: Reader::default(),
            about,
            whole_bodies: false,
        }
    }

    /// Sends one request and reads its answer.
    pub async fn request(&mut self, request: &RequestFields) -> Value {
        self.whole_bodies = request.admin || request.lines.is_some();
        let written = self.io.write_all(&encode(request)).await;
        let mut response = self.response(request.method.as_deref() == Some("HEAD")).await;
        if let (Err(error), None) = (written, response.get("status")) {
            response["write_error"] = super::message::io_error(&error).into();
        }
        if request.wait_close {
            response["then"] = self.reader.wait_end(&mut self.io).await.into();
        }
        self.describe(response)
    }

    /// Plays `steps`, and gathers what came back.
    pub async fn play(&mut self, steps: &[Step], target: &Target) -> Value {
        let mut events = Vec::new();
        let mut connect = false;
        for step in steps {
            match step {
                Step::Send(s) => {
                    // A tunnel follows the head of the answer, not a body.
                    connect |= s.starts_with("CONNECT ");
                    let _ = self.io.write_all(&text::to_bytes(s)).await;
                }
                Step::Await(n) => {
                    for _ in 0..*n {
                        events.push(self.one(connect).await);
                    }
                }
                Step::Read(n) => {
                    let mut bytes = Vec::new();
                    let done = self.reader.take_exact(&mut self.io, *n, &mut bytes).await;
                    let mut event = json!({"bytes": text::show(&bytes)});
                    if let Err(error) = done {
                        event["then"] = error.into();
                    }
                    events.push(event);
                }
                Step::ReadToEnd => events.push(json!({"end": self.reader.wait_end(&mut self.io).await})),
                Step::Pause(seconds) => tokio::time::sleep(Duration::from_secs_f64(*seconds)).await,
                Step::Seen(seen) => {
                    if let Err(error) = super::wait_seen(seen, &target.backends).await {
                        events.push(json!({"error": error.to_string()}));
                    }
                }
                Step::Write(files) => {
                    if let Err(error) = target.write(files) {
                        events.push(json!({"error": error.to_string()}));
                    }
                }
                Step::Admin(path) => {
                    if let Err(error) = proxy::post(target.scope.admin, path).await {
                        events.push(json!({"error": error.to_string()}));
                    }
                }
                Step::Stat(wanted) => {
                    for (name, value) in wanted {
                        if let Err(error) = proxy::wait_stat(target.scope.admin, name, *value).await {
                            events.push(json!({"error": format!("{name}: {error}")}));
                        }
                    }
                }
                Step::Gauge(wanted) => {
                    for (name, value) in wanted {
                        if let Err(error) = proxy::wait_gauge(target.scope.admin, name, *value).await {
                            events.push(json!({"error": format!("{name}: {error}")}));
                        }
                    }
                }
                Step::HalfClose => {
                    let _ = self.io.shutdown().await;
                }
                Step::Close => break,
                Step::Reset => {
                    self.io.arm_reset();
                    break;
                }
            }
        }
        self.describe(json!({ "events": events }))
    }

    fn describe(&self, mut response: Value) -> Value {
        if let Some(about) = &self.about {
            response["tls"] = about.clone();
        }
        response
    }

    /// One final response with the 1xx before it.
    async fn response(&mut self, head_only: bool) -> Value {
        let mut informational = Vec::new();
        loop {
            let mut response = self.one(head_only).await;
            let status = response.get("status").and_then(Value::as_u64).unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                informational.push(response);
                continue;
            }
            if !informational.is_empty() {
                response["informational"] = informational.into();
            }
            return response;
        }
    }

    async fn one(&mut self, head_only: bool) -> Value {
        let head = match self.reader.head(&mut self.io).await {
            Ok(Some(head)) => head,
            Ok(None) => return json!({"no_response": "closed"}),
            Err(error) => return json!({ "no_response": error }),
        };
        self.message(&head, &head.framing_of_response(head_only)).await
    }

    async fn message(&mut self, head: &Head, framing: &Framing) -> Value {
        let body = self.reader.body(&mut self.io, framing).await;
        let mut first = head.first.splitn(3, ' ');
        let version = first.next().unwrap_or_default();
        let mut value = json!({
            "status": head.status(),
            "version": version,
            "reason": first.nth(1).unwrap_or_default(),
            "headers": headers_value(&head.headers),
            "body": if self.whole_bodies { text::show_all(&body.bytes) } else { text::show(&body.bytes) },
        });
        if *framing == Framing::ToEnd {
            value["body_until"] = "close".into();
        }
        if !body.trailers.is_empty() {
            value["trailers"] = headers_value(&body.trailers);
        }
        if let Some(broken) = body.broken {
            value["broken"] = broken.into();
        }
        value
    }
}

fn encode(request: &RequestFields) -> Vec<u8> {
    let method = request.method.as_deref().unwrap_or("GET");
    let path = request.path.as_deref().unwrap_or("/");
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if let Some(host) = super::authority(request) {
        head.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in &request.headers.0 {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = super::body(request);
    let has = |name: &str| request.headers.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let chunked = !request.trailers.0.is_empty() || has("transfer-encoding");
    if !request.trailers.0.is_empty() && !has("transfer-encoding") {
        head.push_str("transfer-encoding: chunked\r\n");
    } else if let Some(body) = body.as_ref().filter(|_| !chunked && !has("content-length")) {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = text::to_bytes(&head);
    let body = body.unwrap_or_default();
    if chunked {
        if !body.is_empty() {
            bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n");
        for (name, value) in &request.trailers.0 {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
    } else {
        bytes.extend_from_slice(&body);
    }
    bytes
}
