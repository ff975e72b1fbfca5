//! The servers behind the proxies: HTTP/1.1 that answers 64 bytes (or 1 MiB under `/1m`), and echo.
//!
//! It shares its core with the load generator, so it must cost next to nothing: it looks for the
//! end of each request head and writes a prepared answer. That is about a third of what nginx
//! spends on a `return 200`.

use std::net::Ipv4Addr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The body of every answer but `/1m`.
pub const SMALL_BODY: &[u8; 64] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";

/// Serves for ever; prints the HTTP port and the echo port first.
pub async fn serve() -> Result<()> {
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{} {}", http.local_addr()?.port(), echo.local_addr()?.port());
    let answers: &'static Answers = Box::leak(Box::new(Answers::new()));
    loop {
        tokio::select! {
            accepted = http.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(answer(stream, answers));
            }
            accepted = echo.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(send_back(stream));
            }
        }
    }
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new() -> Answers {
        let with_body = |body: &[u8]| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        Answers {
            small: with_body(SMALL_BODY),
            large: with_body(&vec![b'x'; 1 << 20]),
        }
    }
}

async fn answer(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let mut done = 0;
        while let Some(rest) = buffer.get(done..)
            && let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let large = rest.starts_with(b"GET /1m");
            stream
                .write_all(if large { &answers.large } else { &answers.small })
                .await?;
            done += end + 4;
        }
        buffer.drain(..done);
    }
}

async fn send_back(mut stream: TcpStream) -> std::io::Result<()> {
    // Small until a large message comes: there may be thousands of idle connections.
    let mut buffer = vec![0; 4 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => {
                stream.write_all(buffer.get(..n).unwrap_or_default()).await?;
                if n == buffer.len() {
                    buffer.resize(256 * 1024, 0);
                }
            }
        }
    }
}
