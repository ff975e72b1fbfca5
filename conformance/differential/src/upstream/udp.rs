//! A backend of datagrams: it answers each of them.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::net::UdpSocket;

use super::State;
use crate::text;

/// Answers until it is dropped.
pub(super) async fn serve(socket: UdpSocket, state: Arc<State>) {
    let default = [format!("{}:{{}}", state.name)];
    let answers = state.spec.udp.as_deref().unwrap_or(&default);
    let mut clients: Vec<SocketAddr> = Vec::new();
    let mut buffer = vec![0; 70_000];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let client = clients.iter().position(|c| *c == from).unwrap_or_else(|| {
            clients.push(from);
            clients.len() - 1
        });
        let mut seen = json!({"datagram": text::show(&buffer[..n]), "client": client});
        if from.ip() != std::net::Ipv4Addr::LOCALHOST {
            seen["from"] = from.ip().to_string().into();
        }
        state.begin(seen);
        for answer in answers {
            let answer = match answer.split_once("{}") {
                Some((before, after)) => [&text::to_bytes(before), &buffer[..n], &text::to_bytes(after)].concat(),
                None => text::to_bytes(answer),
            };
            let _ = socket.send_to(&answer, from).await;
        }
    }
}
