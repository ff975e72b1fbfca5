//! One proxy process: started with a bootstrap, asked through its admin port, ended when dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a proxy may take from its start to `LIVE`, on a machine busy with builds.
const START: Duration = Duration::from_secs(30);

/// How long a `--mode validate` may take.
const VALIDATE: Duration = Duration::from_secs(15);

/// Flags both proxies are started with.
const FLAGS: &[(&str, &str)] = &[
    ("concurrency", "1"),
    ("log-level", "warning"),
    ("file-flush-interval-msec", "20"),
    ("drain-time-s", "1"),
];

/// The usual flags with those of a case over them.
fn flags(own: &BTreeMap<String, String>) -> Vec<String> {
    let mut all: BTreeMap<&str, &str> = FLAGS.iter().copied().collect();
    all.extend(own.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut flags = vec!["--disable-hot-restart".to_owned()];
    for (name, value) in all {
        flags.push(format!("--{name}"));
        if !value.is_empty() {
            flags.push(value.to_owned());
        }
    }
    flags
}

/// A running proxy.
pub struct Proxy {
    child: Child,
    pub admin: u16,
    stderr: PathBuf,
}

impl Proxy {
    /// Starts `binary` and waits until its admin port says `LIVE`. An error carries what it wrote.
    pub async fn start(binary: &Path, config: &Path, admin: u16, own: &BTreeMap<String, String>) -> Result<Proxy> {
        let stderr = config.with_extension("stderr");
        let child = Command::new(binary)
            .arg("-c")
            .arg(config)
            .args(flags(own))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let mut proxy = Proxy { child, admin, stderr };
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("ended with {status}: {}", proxy.complaint());
            }
            if let Ok((200, _)) = proxy.get("/ready").await {
                return Ok(proxy);
            }
            if Instant::now() > deadline {
                bail!("not ready after {START:?}: {}", proxy.complaint());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// False once the process has ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last thing it wrote that looks like a reason.
    pub fn complaint(&self) -> String {
        reason(&std::fs::read_to_string(&self.stderr).unwrap_or_default())
    }

    /// GET from the admin port: status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        tokio::time::timeout(Duration::from_secs(10), get(self.admin, path)).await?
    }
}

/// POST to the admin port; an answer of any status will do.
pub async fn post(admin: u16, path: &str) -> Result<()> {
    let asked = ask(admin, "POST", path);
    tokio::time::timeout(Duration::from_secs(5), asked).await?.map(drop)
}

async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    ask(port, "GET", path).await
}

async fn ask(port: u16, method: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").context("no answer")?;
    let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("no status")?;
    let body = &answer[at + 4..];
    let body = if head.contains("transfer-encoding: chunked") {
        dechunk(body)
    } else {
        body.to_vec()
    };
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Waits until the stat `name` is at least `value`.
pub async fn wait_stat(admin: u16, name: &str, value: u64) -> Result<()> {
    wait(admin, name, &format!("reached {value}"), |now| now >= value).await
}

/// Waits until the stat `name` is `value`, which it may come down to.
pub async fn wait_gauge(admin: u16, name: &str, value: u64) -> Result<()> {
    wait(admin, name, &format!("was {value}"), |now| now == value).await
}

async fn wait(admin: u16, name: &str, wanted: &str, done: impl Fn(u64) -> bool) -> Result<()> {
    let line = format!("{name}: ");
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (_, text) = get(admin, &format!("/stats?filter={name}")).await?;
        let now = text.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or("absent");
        if now.parse::<u64>().is_ok_and(&done) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("stayed {now}, never {wanted}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..at]), 16).unwrap_or(0);
        let (from, to) = (at + 2, at + 2 + size);
        if size == 0 || to + 2 > rest.len() {
            break;
        }
        body.extend_from_slice(&rest[from..to]);
        rest = &rest[to + 2..];
    }
    body
}

/// What `--mode validate` said: whether it accepts, and its reason if not.
pub struct Verdict {
    pub accepted: bool,
    pub reason: String,
}

/// Runs `--mode validate`.
pub async fn validate(binary: &Path, config: &Path) -> Result<Verdict> {
    let run = Command::new(binary)
        .arg("-c")
        .arg(config)
        .args(flags(&BTreeMap::new()))
        .args(["--mode", "validate"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VALIDATE, run)
        .await
        .context("--mode validate does not end")??;
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(Verdict {
        accepted: output.status.success(),
        reason: reason(&text),
    })
}

/// The line of a log that says why: the last critical, error or panic, otherwise the last line.
fn reason(log: &str) -> String {
    let lines = || log.lines().rev().filter(|l| !l.trim().is_empty());
    let telling = |l: &&str| {
        let l = l.to_ascii_lowercase();
        l.contains("[critical]") || l.contains("panicked") || l.contains("error")
    };
    let line = lines()
        .find(telling)
        .or_else(|| lines().next())
        .unwrap_or("(it wrote nothing)");
    line.trim().chars().take(600).collect()
}
