//! The least HTTP/1.1 client that a readiness check, a scrape and an idle connection need.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

/// Connects to a port of this machine, with a limit on every later wait.
pub fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One GET on a connection of its own; the length of the whole answer, which must be a 200.
pub fn get(port: u16, host: &str, path: &str) -> Result<usize> {
    Ok(answer(port, host, path)?.len())
}

/// Like [`get`], with the answer as text.
pub fn get_text(port: u16, host: &str, path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&answer(port, host, path)?).into_owned())
}

fn answer(port: u16, host: &str, path: &str) -> Result<Vec<u8>> {
    let mut stream = connect(port)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!(
            "{path}: {}",
            String::from_utf8_lossy(answer.get(..60).unwrap_or(&answer))
        );
    }
    Ok(answer)
}

/// One GET on a connection that stays open. The 64-byte body is read with the head.
pub fn get_and_keep(stream: &mut (impl Read + Write)) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench.example\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 2048];
    while !answer.ends_with(crate::backend::SMALL_BODY) {
        match stream.read(&mut chunk)? {
            0 => bail!("closed before the answer was complete"),
            n => answer.extend_from_slice(chunk.get(..n).unwrap_or_default()),
        }
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
