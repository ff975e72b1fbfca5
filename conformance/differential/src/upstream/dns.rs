//! A backend that answers DNS queries over UDP and TCP on one port, from the zone of the case.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::State;
use crate::case::DnsAnswer;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const NXDOMAIN: u16 = 3;

/// Which queries for a name and a type came before.
type Asked = Mutex<HashMap<(String, u16), usize>>;

/// Answers on both sockets until it is dropped.
pub(super) async fn serve(udp: UdpSocket, tcp: TcpListener, state: Arc<State>) {
    let asked = Arc::new(Asked::default());
    tokio::join!(
        datagrams(Arc::new(udp), state.clone(), asked.clone()),
        connections(tcp, state, asked)
    );
}

async fn datagrams(socket: Arc<UdpSocket>, state: Arc<State>, asked: Arc<Asked>) {
    let mut buffer = [0; 4096];
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let (query, socket) = (buffer[..n].to_vec(), socket.clone());
        let (state, asked) = (state.clone(), asked.clone());
        tasks.spawn(async move {
            if let Some(answer) = answer(&query, "udp", &state, &asked).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn connections(listener: TcpListener, state: Arc<State>, asked: Arc<Asked>) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (state, asked) = (state.clone(), asked.clone());
        tasks.spawn(async move { connection(stream, &state, &asked).await });
    }
}

async fn connection(mut stream: TcpStream, state: &State, asked: &Asked) -> Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = answer(&query, "tcp", state, asked).await {
            stream.write_u16(u16::try_from(answer.len())?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

/// The answer to a query; none when the zone drops it, or it is no query.
async fn answer(query: &[u8], over: &str, state: &State, asked: &Asked) -> Option<Vec<u8>> {
    let question = Question::read(query).ok()?;
    let kind = match question.kind {
        A => "A".to_owned(),
        AAAA => "AAAA".to_owned(),
        other => other.to_string(),
    };
    state.begin(json!({"query": format!("{} {kind} {over}", question.name)}));
    let number = {
        let mut asked = asked.lock().ok()?;
        let count = asked.entry((question.name.clone(), question.kind)).or_default();
        *count += 1;
        *count - 1
    };
    let spec = match state.spec.zone.get(&question.name) {
        Some(answers) => answers.at(number)?.clone(),
        None => DnsAnswer {
            rcode: Some("NXDOMAIN".to_owned()),
            ..DnsAnswer::default()
        },
    };
    spec.delay.wait().await;
    if spec.drop {
        return None;
    }
    Some(respond(query, &question, &spec, over, state))
}

fn respond(query: &[u8], question: &Question, spec: &DnsAnswer, over: &str, state: &State) -> Vec<u8> {
    let rcode = match spec.rcode.as_deref() {
        Some("FORMERR") => 1,
        Some("SERVFAIL") => 2,
        Some("NXDOMAIN") => NXDOMAIN,
        Some("NOTIMP") => 4,
        Some("REFUSED") => 5,
        _ => 0,
    };
    let truncated = spec.truncated && over == "udp";
    // Recursion is wanted and had.
    let flags = 0x8180 | rcode | if truncated { 0x0200 } else { 0 };
    let mut records: Vec<Vec<u8>> = Vec::new();
    let (mut owner, mut addresses) = (vec![0xc0, 12], spec);
    let empty = DnsAnswer::default();
    if let Some(target) = &spec.cname {
        let name = encode(target);
        records.push(record(&owner, CNAME, spec.ttl(), &name));
        owner = name;
        addresses = state.spec.zone.get(target).and_then(|a| a.at(0)).unwrap_or(&empty);
    }
    if !truncated {
        for address in &addresses.a {
            if question.kind == A
                && let Ok(ip) = address.parse::<Ipv4Addr>()
            {
                records.push(record(&owner, A, addresses.ttl(), &ip.octets()));
            }
        }
        for address in &addresses.aaaa {
            if question.kind == AAAA
                && let Ok(ip) = address.parse::<Ipv6Addr>()
            {
                records.push(record(&owner, AAAA, addresses.ttl(), &ip.octets()));
            }
        }
    }
    let mut out = query[..2].to_vec();
    for number in [flags, 1, records.len() as u16, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(&query[12..question.end]);
    out.extend(records.concat());
    out
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend(kind.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
    out
}

fn encode(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out
}

/// What a query asks: the first question.
struct Question {
    /// In lower case, without the last dot.
    name: String,
    kind: u16,
    /// Where it ends in the message.
    end: usize,
}

impl Question {
    fn read(query: &[u8]) -> Result<Question> {
        let byte = |at: usize| query.get(at).copied().context("short");
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(byte(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = query.get(at..at + length).context("short")?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes([byte(at)?, byte(at + 1)?]);
        byte(at + 3)?;
        Ok(Question {
            name: labels.join("."),
            kind,
            end: at + 4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_and_names_written() {
        let mut query = vec![0; 12];
        query.extend(encode("Up.test"));
        query.extend([0, 28, 0, 1]);
        let question = Question::read(&query).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("up.test", AAAA));
        assert_eq!(question.end, query.len());
        assert!(Question::read(&query[..15]).is_err());
    }
}
