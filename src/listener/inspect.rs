//! What a client says first: TLS or not, SNI and ALPN, HTTP version (`tls_inspector`, `http_inspector`).
//!
//! The bytes are peeked, never taken, so whoever serves the connection reads them again.

use std::{io, sync::Arc};

use tokio::net::TcpStream;

/// Most bytes a ClientHello may have here, as Envoy's `max_client_hello_size`.
const MAX_HELLO: usize = 16 * 1024;

/// What was found.
#[derive(Debug, Default, Clone)]
pub struct Inspected {
    /// Whether a ClientHello was seen.
    pub tls: bool,
    /// SNI, lower-case.
    pub server_name: Option<Arc<str>>,
    /// Protocols: ALPN of a ClientHello, or `http/1.1`, `http/1.0`, `h2c` of plain text.
    pub protocols: Vec<String>,
}

/// Peeks until it is clear what the client speaks.
pub async fn inspect(stream: &TcpStream, tls: bool, http: bool) -> io::Result<Inspected> {
    let mut buffer = vec![0_u8; 1024];
    let mut seen = 0;
    loop {
        stream.readable().await?;
        let n = stream.peek(&mut buffer).await?;
        let bytes = buffer.get(..n).unwrap_or_default();
        if n == 0 {
            return Ok(Inspected::default());
        }
        if tls && bytes.first() == Some(&0x16) {
            match client_hello(bytes) {
                Hello::Found(found) => return Ok(found),
                Hello::NotTls => {}
                Hello::Incomplete if n < MAX_HELLO => {
                    if n == buffer.len() {
                        buffer.resize((n * 2).min(MAX_HELLO), 0);
                    }
                    if n == seen {
                        // Peeked bytes keep a socket readable: without new ones, wait a little for the rest.
                        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    }
                    seen = n;
                    continue;
                }
                Hello::Incomplete => return Ok(Inspected::default()),
            }
        }
        if !http {
            return Ok(Inspected::default());
        }
        if let Some(protocol) = http_version(bytes) {
            return Ok(Inspected {
                protocols: protocol.map(str::to_owned).into_iter().collect(),
                ..Inspected::default()
            });
        }
        if n >= 8192 {
            return Ok(Inspected::default());
        }
        if n == buffer.len() {
            buffer.resize(n * 2, 0);
        }
        if n == seen {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        seen = n;
    }
}

enum Hello {
    Found(Inspected),
    NotTls,
    Incomplete,
}

fn client_hello(bytes: &[u8]) -> Hello {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Hello::NotTls;
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            let protocols = hello
                .alpn()
                .map(|all| {
                    all.filter_map(|p| std::str::from_utf8(p).ok().map(str::to_owned))
                        .collect()
                })
                .unwrap_or_default();
            let server_name = hello.server_name().map(|n| n.to_ascii_lowercase().into());
            Hello::Found(Inspected {
                tls: true,
                server_name,
                protocols,
            })
        }
        Ok(None) => Hello::Incomplete,
        Err(_) => Hello::NotTls,
    }
}

/// `Some(Some(..))`: HTTP of that version; `Some(None)`: not HTTP; `None`: more bytes are needed.
fn http_version(bytes: &[u8]) -> Option<Option<&'static str>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let common = bytes.len().min(PREFACE.len());
    if bytes.get(..common) == PREFACE.get(..common) {
        return (bytes.len() >= PREFACE.len()).then_some(Some("h2c"));
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        let plausible = bytes.iter().all(|b| (b' '..0x7f).contains(b) || *b == b'\r');
        return if plausible { None } else { Some(None) };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(if line.ends_with(b" HTTP/1.1") {
        Some("http/1.1")
    } else if line.ends_with(b" HTTP/1.0") {
        Some("http/1.0")
    } else {
        None
    })
}
