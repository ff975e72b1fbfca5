//! What the tests that start the proxy as a process share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A process that ends with this value.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts the proxy with its usual flags and these, one worker unless they say otherwise.
    pub fn start(flags: &[&str]) -> Self {
        let workers: &[&str] = match flags.contains(&"--concurrency") {
            true => &[],
            false => &["--concurrency", "1"],
        };
        let process = Command::new(env!("CARGO_BIN_EXE_nuncio"))
            .args(["--disable-hot-restart", "-l", "error"])
            .args(workers)
            .args(flags)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(process)
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `holds`, at most half a minute: slow machines are slow.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The whole answer to a GET, head and body; none without one.
pub fn get(port: u16, path: &str) -> Option<String> {
    ask(port, path, "localhost", "")
}

/// The same with another host and more headers, as whole lines.
pub fn ask(port: u16, path: &str, host: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Whether the proxy with this admin port serves.
pub fn is_live(admin: u16) -> bool {
    get(admin, "/ready").is_some_and(|answer| answer.contains("LIVE"))
}

/// An address in a listener or a cluster.
pub fn tcp(port: u16) -> String {
    format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}")
}
