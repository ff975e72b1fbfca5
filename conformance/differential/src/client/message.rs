//! HTTP/1 messages read by hand, tolerant of everything: the harness reports, it does not judge.

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A start line and the headers after it, in order.
#[derive(Debug, Default)]
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

/// How the end of a body is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    ToEnd,
}

/// A body as far as it came.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Why it is incomplete.
    pub broken: Option<String>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    pub fn is_upgrade(&self) -> bool {
        self.get("upgrade").is_some() || self.first.starts_with("CONNECT ")
    }

    pub fn framing_of_request(&self) -> Framing {
        if self.is_chunked() {
            Framing::Chunked
        } else {
            self.length().map_or(Framing::None, Framing::Length)
        }
    }

    /// `head_only`: the request was HEAD.
    pub fn framing_of_response(&self, head_only: bool) -> Framing {
        match self.status() {
            _ if head_only => Framing::None,
            100..=199 | 204 | 304 => Framing::None,
            _ if self.is_chunked() => Framing::Chunked,
            _ => self.length().map_or(Framing::ToEnd, Framing::Length),
        }
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding")
            .is_some_and(|v| v.to_ascii_lowercase().contains("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length").and_then(|v| v.parse().ok())
    }
}

/// Bytes that came but were not asked for yet.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// The next head; none at an orderly end. `Err` says how the connection ended within it.
    pub async fn head(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<Option<Head>, String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return Ok(Some(parse_head(&bytes)));
            }
            match self.fill(io).await {
                Ok(true) => {}
                Ok(false) if self.buffer.is_empty() => return Ok(None),
                Ok(false) => return Err(format!("closed after {:?}", crate::text::show(&self.buffer))),
                Err(error) => return Err(error),
            }
        }
    }

    /// The body that follows a head.
    pub async fn body(&mut self, io: &mut (impl AsyncRead + Unpin), framing: &Framing) -> Body {
        let mut body = Body::default();
        let done = match framing {
            Framing::None => Ok(()),
            Framing::Length(n) => self.take_exact(io, *n, &mut body.bytes).await,
            Framing::ToEnd => self.take_all(io, &mut body.bytes).await,
            Framing::Chunked => self.chunks(io, &mut body).await,
        };
        body.broken = done.err();
        body
    }

    async fn chunks(&mut self, io: &mut (impl AsyncRead + Unpin), body: &mut Body) -> Result<(), String> {
        loop {
            let line = self.line(io).await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| format!("bad chunk size {line:?}"))?;
            if size == 0 {
                loop {
                    let line = self.line(io).await?;
                    match line.split_once(':') {
                        Some((name, value)) => body.trailers.push((name.to_owned(), value.trim().to_owned())),
                        None => return Ok(()),
                    }
                }
            }
            self.take_exact(io, size, &mut body.bytes).await?;
            self.line(io).await?;
        }
    }

    async fn line(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<String, String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(latin1(&bytes[..at]));
            }
            if !self.fill(io).await? {
                return Err("closed".into());
            }
        }
    }

    /// Exactly `n` bytes, or as many as came before the end.
    pub async fn take_exact(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        n: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut left = n;
        loop {
            let now = left.min(self.buffer.len());
            into.extend(self.buffer.drain(..now));
            left -= now;
            if left == 0 {
                return Ok(());
            }
            if !self.fill(io).await? {
                return Err("closed".into());
            }
        }
    }

    /// Everything until an orderly end.
    pub async fn take_all(&mut self, io: &mut (impl AsyncRead + Unpin), into: &mut Vec<u8>) -> Result<(), String> {
        loop {
            into.append(&mut self.buffer);
            if !self.fill(io).await? {
                return Ok(());
            }
        }
    }

    /// Waits for the end and says how it came: `closed`, or an error; bytes on the way are told too.
    pub async fn wait_end(&mut self, io: &mut (impl AsyncRead + Unpin)) -> String {
        let mut rest = Vec::new();
        let end = match self.take_all(io, &mut rest).await {
            Ok(()) => "closed".to_owned(),
            Err(error) => error,
        };
        if rest.is_empty() {
            end
        } else {
            format!("{end} after {}", crate::text::show(&rest))
        }
    }

    /// What was read ahead.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    async fn fill(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<bool, String> {
        let mut chunk = [0; 16384];
        match io.read(&mut chunk).await {
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(n > 0)
            }
            Err(error) => Err(io_error(&error)),
        }
    }
}

/// Words for an error that do not depend on the operating system's wording.
pub fn io_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset".into(),
        // A TLS peer that ends without close_notify.
        ErrorKind::UnexpectedEof => "closed".into(),
        _ => error.to_string(),
    }
}

/// Headers as a mapping of name (as it was written) to its values in order.
pub fn headers_value(headers: &[(String, String)]) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        if let Some(list) = map
            .entry(name.clone())
            .or_insert_with(|| Value::Array(Vec::new()))
            .as_array_mut()
        {
            list.push(Value::from(value.clone()));
        }
    }
    Value::Object(map)
}

fn parse_head(bytes: &[u8]) -> Head {
    let text = latin1(bytes);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter(|l| !l.is_empty())
        .map(|l| match l.split_once(':') {
            Some((name, value)) => (name.to_owned(), value.trim().to_owned()),
            None => (l.to_owned(), String::new()),
        })
        .collect();
    Head { first, headers }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_with_trailers_end_where_they_end() {
        let mut io: &[u8] =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\nHTTP/1.1 204 None\r\n\r\n";
        let mut reader = Reader::default();
        let head = reader.head(&mut io).await.unwrap().unwrap();
        let body = reader.body(&mut io, &head.framing_of_response(false)).await;
        assert_eq!((&body.bytes[..], body.broken), (&b"abc"[..], None));
        assert_eq!(body.trailers, [("t".to_owned(), "v".to_owned())]);
        assert_eq!(reader.head(&mut io).await.unwrap().unwrap().status(), 204);
        assert!(reader.head(&mut io).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_short_body_says_so() {
        let mut io: &[u8] = b"abc";
        let body = Reader::default().body(&mut io, &Framing::Length(5)).await;
        assert_eq!((&body.bytes[..], body.broken.as_deref()), (&b"abc"[..], Some("closed")));
    }
}
