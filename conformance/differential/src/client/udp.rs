//! A client of datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Target, wait_seen};
use crate::case::{RequestFields, UdpStep};
use crate::{proxy, text};

/// How long a datagram is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest datagram, and more.
const LONGEST: usize = 70_000;

/// A socket that sends to one address and takes what comes from anywhere.
pub struct Socket {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Socket {
    pub async fn open(request: &RequestFields, port: u16) -> Result<Socket, Value> {
        let failed = |e: &dyn std::fmt::Display| json!({"harness_error": e.to_string()});
        let ip = |text: &Option<String>| text.as_deref().unwrap_or("127.0.0.1").parse().map_err(|e| failed(&e));
        let socket = UdpSocket::bind(SocketAddr::new(ip(&request.from)?, 0)).await;
        Ok(Socket {
            socket: socket.map_err(|e| failed(&e))?,
            to: SocketAddr::new(ip(&request.to)?, port),
        })
    }

    /// Plays `steps`, and gathers what came back.
    pub async fn play(&mut self, steps: &[UdpStep], target: &Target) -> Value {
        let mut events = Vec::new();
        for step in steps {
            let done = match step {
                UdpStep::Send(s) => {
                    // What the proxy does not take shows itself in what does not come back.
                    let _ = self.socket.send_to(&text::to_bytes(s), self.to).await;
                    Ok(())
                }
                UdpStep::Receive(n) => {
                    for _ in 0..*n {
                        events.push(self.receive(PATIENCE).await);
                    }
                    Ok(())
                }
                UdpStep::Silence(seconds) => {
                    events.push(self.receive(Duration::from_secs_f64(*seconds)).await);
                    Ok(())
                }
                UdpStep::Pause(seconds) => {
                    tokio::time::sleep(Duration::from_secs_f64(*seconds)).await;
                    Ok(())
                }
                UdpStep::Seen(seen) => wait_seen(seen, &target.backends).await,
                UdpStep::Stat(stats) => wait_stats(stats, target).await,
                UdpStep::Write(files) => target.write(files),
                UdpStep::Admin(path) => proxy::post(target.scope.admin, path).await.map(|_| ()),
            };
            if let Err(error) = done {
                events.push(json!({"error": error.to_string()}));
            }
        }
        json!({ "events": events })
    }

    async fn receive(&self, patience: Duration) -> Value {
        let mut buffer = vec![0; LONGEST];
        match timeout(patience, self.socket.recv_from(&mut buffer)).await {
            Ok(Ok((n, from))) if from == self.to => json!({"datagram": text::show(&buffer[..n])}),
            Ok(Ok((n, from))) => json!({"datagram": text::show(&buffer[..n]), "from": from.to_string()}),
            Ok(Err(error)) => json!({"error": error.to_string()}),
            Err(_) => json!("nothing"),
        }
    }
}

async fn wait_stats(stats: &std::collections::BTreeMap<String, u64>, target: &Target) -> anyhow::Result<()> {
    for (name, value) in stats {
        proxy::wait_stat(target.scope.admin, name, *value).await?;
    }
    Ok(())
}
