//! Memory by proportional set size: at start, and what an idle connection adds.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::http;
use crate::load::handshake;
use crate::proxies::Running;
use crate::rows::Idle;

/// How long a proxy is left alone before its memory is read: what it freed after its start is given back by then, in
/// a second or so where the allocator waits for its reuse.
pub const SETTLE: Duration = Duration::from_secs(3);

/// MB of a process that has just become ready.
pub fn at_start(running: &Running) -> Result<f64> {
    std::thread::sleep(SETTLE);
    Ok(running.process.pss_kb()? / 1024.0)
}

/// How long connections are idle before their memory is read.
const IDLE: Duration = Duration::from_secs(3);

/// KB that each of `count` connections adds, each after one request or message and then idle.
pub fn per_connection(running: &Running, kind: Idle, count: usize) -> Result<f64> {
    trait Connection: Read + Write {}
    impl<T: Read + Write> Connection for T {}

    let config = handshake::client_config(false)?;
    let open = || -> Result<Box<dyn Connection>> {
        let mut stream: Box<dyn Connection> = match kind {
            Idle::Http => Box::new(http::connect(running.ports.http1)?),
            Idle::Tls => {
                let name = ServerName::try_from("bench.example")?;
                let connection = ClientConnection::new(Arc::clone(&config), name)?;
                Box::new(StreamOwned::new(connection, http::connect(running.ports.tls)?))
            }
            Idle::Tcp => Box::new(http::connect(running.ports.tcp)?),
        };
        match kind {
            Idle::Http | Idle::Tls => http::get_and_keep(&mut stream)?,
            Idle::Tcp => {
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])?;
            }
        }
        Ok(stream)
    };
    // What the first connections touch belongs to the process.
    let _first: Vec<_> = (0..20).map(|_| open()).collect::<Result<_>>()?;
    std::thread::sleep(IDLE);
    let before = running.process.pss_kb()?;
    let _idle: Vec<_> = (0..count).map(|_| open()).collect::<Result<_>>()?;
    std::thread::sleep(IDLE);
    Ok((running.process.pss_kb()? - before) / count as f64)
}
