//! What a case file may say. README.md explains each key to people who write cases; the types here
//! are the same list with defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::distribution::Distribution;
use crate::frames::Frame;

/// A case file as it was read: its id and its YAML, not yet substituted for one side.
#[derive(Clone, Debug)]
pub struct Source {
    /// `topic/name`.
    pub id: String,
    pub path: PathBuf,
    pub yaml: Value,
}

impl Source {
    /// The prefix of this case's listeners, clusters and stats: the id in the letters of a stat name.
    /// The last letter keeps `a/b` apart from `a/b_c`.
    pub fn prefix(&self) -> String {
        self.id.replace(|c: char| !c.is_ascii_alphanumeric(), "_") + "-"
    }

    /// The case with no placeholder replaced: enough for its flags.
    pub fn parse(&self) -> Result<Case> {
        serde_json::from_value(self.yaml.clone()).with_context(|| self.path.display().to_string())
    }
}

/// Reads every `*.yaml` below `dir`, in the order of their ids.
pub fn load(dir: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for topic in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let topic = topic?.path();
        if !topic.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&topic)? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "yaml") {
                sources.push(read(&path)?);
            }
        }
    }
    sources.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(sources)
}

fn read(path: &Path) -> Result<Source> {
    let text = std::fs::read_to_string(path)?;
    let yaml = serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
    let topic = path.parent().unwrap_or(Path::new("."));
    let yaml = crate::base::expand(yaml, topic).with_context(|| path.display().to_string())?;
    let name = |p: &Path| {
        p.file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let id = format!("{}/{}", path.parent().map(name).unwrap_or_default(), name(path));
    let source = Source {
        id,
        path: path.to_owned(),
        yaml,
    };
    source.parse()?;
    Ok(source)
}

/// One case, for one side.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    pub title: String,
    pub note: String,
    /// A process of its own (implied by `bootstrap` and `validate`).
    pub isolated: bool,
    /// The two must differ, for this reason.
    pub known_difference: Option<String>,

    pub routes: Vec<Value>,
    pub virtual_hosts: Option<Vec<Value>>,
    pub route_config: Map<String, Value>,
    pub hcm: Map<String, Value>,
    pub http_filters: Vec<Value>,
    pub filter_chain: Map<String, Value>,
    pub network_filters: Option<Vec<Value>>,
    pub listener: Map<String, Value>,
    /// Makes the listener one of UDP, with a UDP proxy; merged over its configuration.
    pub udp_proxy: Option<Map<String, Value>>,
    pub clusters: Map<String, Value>,
    pub bootstrap: Map<String, Value>,
    /// Flags of the command line, in place of the usual ones of their names: name without dashes to value.
    pub flags: BTreeMap<String, String>,
    /// Files written into `{{dir}}` before the proxy starts: name to content.
    pub files: BTreeMap<String, String>,
    /// Only run `--mode validate` and compare the verdict.
    pub validate: Option<Validate>,

    pub upstreams: BTreeMap<String, Upstream>,
    pub requests: Vec<Request>,

    pub access_log: AccessLog,
    /// Access-log lines to wait for; default: one per request to the listener.
    pub logs: Option<usize>,
    /// Patterns of stat names (prefix of the case removed) whose values are compared.
    pub stats: Vec<String>,
    /// Patterns of paths in the outcome that are left out, e.g. `responses\[0\].body`.
    pub ignore: Vec<String>,
}

impl Case {
    /// Whether chance has a part in it: logs and what upstreams saw are not compared then.
    pub fn draws(&self) -> bool {
        self.requests.iter().any(|r| r.distribution.is_some())
    }

    pub fn needs_own_process(&self) -> bool {
        self.isolated || !self.bootstrap.is_empty() || !self.flags.is_empty() || self.validate.is_some()
    }
}

/// What `--mode validate` must say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validate {
    /// Envoy's verdict, checked against Envoy itself.
    pub accepted: bool,
    /// A pattern both reasons must match.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub enum AccessLog {
    /// [`crate::config::DEFAULT_LOG`].
    #[default]
    Default,
    Off,
    Text(String),
    /// Any `log_format` of Envoy's.
    Format(Value),
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(d)? {
            Value::Bool(false) => AccessLog::Off,
            Value::Bool(true) | Value::Null => AccessLog::Default,
            Value::String(s) => AccessLog::Text(s),
            other => AccessLog::Format(other),
        })
    }
}

/// A scripted backend.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub protocol: UpstreamProtocol,
    /// Name of the certificate it serves; none is plain text.
    pub tls: Option<String>,
    /// Asks for a client certificate.
    pub mtls: bool,
    /// Nothing listens on its port.
    pub refused: bool,
    /// The answer to every request.
    pub reply: Option<Reply>,
    /// Answers one after the other; the last one repeats.
    pub replies: Vec<Reply>,
    /// Answers by the path's part before `?`; they come before `replies`.
    pub paths: BTreeMap<String, Reply>,
    /// What a `tcp` upstream does with a connection; default: echo.
    pub tcp: Vec<Step>,
    /// What a `frames` upstream does with each connection.
    pub frames: Vec<Frame>,
    /// What a `udp` upstream sends back for each datagram, `{}` in it standing for that; default `NAME:{}`.
    pub udp: Option<Vec<String>>,
    /// Its connections are HBONE: `protocol` is spoken within CONNECT tunnels.
    pub hbone: bool,
    /// The answer to each CONNECT, one after the other; the last one repeats. Default 200. `close_after` says GOAWAY too.
    pub connects: Vec<Reply>,
    /// Compare only the number of values of this header that any of its connections carried: requests that
    /// cross have no order.
    pub values_per_connection: Option<String>,
    /// Compare which connection each request came by.
    pub number_connections: bool,
    /// Compare how many connections it saw.
    pub count_connections: bool,
    /// The address it listens on; default 127.0.0.1.
    pub ip: Option<String>,
    /// It listens on the port of this upstream (with another `ip`).
    pub same_port: Option<String>,
    /// What a `dns` upstream answers, by name; other names do not exist.
    pub zone: BTreeMap<String, DnsAnswers>,
}

impl Upstream {
    /// Whether records say which connection they are of.
    pub fn number_connections(&self) -> bool {
        self.number_connections || self.values_per_connection.is_some()
    }
}

/// One answer for ever, or one for each query of a type; the last one repeats.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum DnsAnswers {
    Always(Box<DnsAnswer>),
    InTurn(Vec<DnsAnswer>),
}

impl DnsAnswers {
    /// The answer to query number `n`.
    pub fn at(&self, n: usize) -> Option<&DnsAnswer> {
        match self {
            DnsAnswers::Always(answer) => Some(answer),
            DnsAnswers::InTurn(list) => list.get(n).or(list.last()),
        }
    }
}

/// What is known of a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsAnswer {
    pub a: Vec<String>,
    pub aaaa: Vec<String>,
    /// Another name of the zone, whose addresses are given along.
    pub cname: Option<String>,
    /// Seconds; default 300.
    pub ttl: Option<u32>,
    /// `SERVFAIL NXDOMAIN REFUSED NOTIMP FORMERR`.
    pub rcode: Option<String>,
    /// Over UDP only the word that there is more.
    pub truncated: bool,
    pub delay: Seconds,
    /// Never answer.
    pub drop: bool,
}

impl DnsAnswer {
    pub fn ttl(&self) -> u32 {
        self.ttl.unwrap_or(300)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    #[default]
    H1,
    H2,
    Tcp,
    /// HTTP/2 frame by frame.
    Frames,
    /// Name resolution over UDP and TCP.
    Dns,
    /// Datagrams.
    Udp,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reply {
    pub status: Option<u16>,
    pub headers: Headers,
    pub body: Option<String>,
    /// Hexadecimal body (gRPC frames).
    pub body_hex: Option<String>,
    /// The body is the request's body.
    pub echo: bool,
    pub trailers: Headers,
    /// Answer with `transfer-encoding: chunked` (implied by trailers on HTTP/1).
    pub chunked: bool,
    pub delay: Seconds,
    /// Pause between head and body.
    pub body_delay: Seconds,
    /// 1xx answers sent first.
    pub informational: Vec<u16>,
    /// The answer byte for byte (HTTP/1).
    pub raw: Option<String>,
    /// Where the connection (HTTP/1) or stream (HTTP/2) is torn down.
    pub reset: Option<Break>,
    /// The code of an HTTP/2 reset; default INTERNAL_ERROR.
    pub reset_code: Option<u32>,
    /// Where the connection is closed in an orderly way.
    pub close: Option<Break>,
    /// Close after the whole answer.
    pub close_after: bool,
    /// Never answer.
    pub never: bool,
    /// Answer before the request's body was read.
    pub early: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Break {
    /// As soon as a connection is accepted.
    Connect,
    /// After the request, before the answer.
    BeforeHead,
    MidHead,
    MidBody,
}

/// Header lists keep order and repetition; a mapping is accepted as well.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = |v: Value| match v {
            Value::String(s) => s,
            other => other.to_string(),
        };
        match Value::deserialize(d)? {
            Value::Object(map) => Ok(Headers(map.into_iter().map(|(k, v)| (k, text(v))).collect())),
            Value::Array(list) => list
                .into_iter()
                .map(|item| match item {
                    Value::Array(pair) if pair.len() == 2 => {
                        let mut pair = pair.into_iter().map(text);
                        Ok((pair.next().unwrap_or_default(), pair.next().unwrap_or_default()))
                    }
                    _ => Err(D::Error::custom("a header is a pair [name, value]")),
                })
                .collect::<Result<_, _>>()
                .map(Headers),
            _ => Err(D::Error::custom("headers are a mapping or a list of pairs")),
        }
    }
}

/// A length of time in seconds, as a number.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl Seconds {
    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }
    pub async fn wait(self) {
        if self.0 > 0.0 {
            tokio::time::sleep(self.duration()).await;
        }
    }
}

/// One thing done on a connection, in order. Exactly one key is given; it may be null.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Bytes, one per character below U+0100.
    Send(String),
    /// This many HTTP responses (1xx count).
    Await(usize),
    /// This many bytes.
    Read(usize),
    /// Everything until the peer closes.
    ReadToEnd,
    Pause(f64),
    /// Until the named upstream has seen this many requests or connections.
    Seen(BTreeMap<String, usize>),
    /// Puts new files in place below `{{dir}}`.
    Write(BTreeMap<String, String>),
    /// POST to the admin port.
    Admin(String),
    /// Until the proxy's stats have reached these values.
    Stat(BTreeMap<String, u64>),
    /// Until the proxy's gauges have these values, which they may come down to.
    Gauge(BTreeMap<String, u64>),
    HalfClose,
    Close,
    Reset,
}

/// One thing done with a socket for datagrams, in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UdpStep {
    /// A datagram, one byte per character below U+0100.
    Send(String),
    /// So many datagrams come back; each is waited for.
    Receive(usize),
    /// Nothing comes for so many seconds.
    Silence(f64),
    Pause(f64),
    /// Until the named upstream has seen so many datagrams.
    Seen(BTreeMap<String, usize>),
    /// Until stats have these values.
    Stat(BTreeMap<String, u64>),
    /// Replaces files below `{{dir}}` by a move.
    Write(BTreeMap<String, String>),
    /// POST to the admin port.
    Admin(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestFields {
    pub method: Option<String>,
    pub path: Option<String>,
    /// `:authority` or `host`; default `example.test`; null sends none.
    #[serde(deserialize_with = "present")]
    pub host: Option<Option<String>>,
    /// `:scheme` over HTTP/2; default `http`, with TLS `https`.
    pub scheme: Option<String>,
    pub headers: Headers,
    pub body: Option<String>,
    pub body_hex: Option<String>,
    pub trailers: Headers,
    pub h2: bool,
    /// Sent to the admin port instead of the listener.
    pub admin: bool,
    /// Another port than the listener's: a number, or the placeholder that becomes one.
    pub port: Option<Value>,
    pub tls: Option<ClientTls>,
    /// The connection goes through a CONNECT tunnel.
    pub tunnel: Option<TunnelFields>,
    /// Requests with the same name share a connection.
    pub connection: Option<String>,
    /// A scripted HTTP/1 connection instead of one request.
    pub steps: Vec<Step>,
    /// A scripted HTTP/2 connection instead of one request.
    pub frames: Vec<Frame>,
    /// Datagrams instead of a connection.
    pub udp: Vec<UdpStep>,
    /// The address that datagrams are sent from; default 127.0.0.1.
    pub from: Option<String>,
    /// The address that datagrams are sent to; default 127.0.0.1.
    pub to: Option<String>,
    /// Wait until the proxy closes the connection, and record how.
    pub wait_close: bool,
    /// Go on with the next request while this one runs.
    pub background: bool,
    /// Start when the upstream has seen so many requests.
    pub when_seen: BTreeMap<String, usize>,
    /// Start when these stats of the proxy have reached these values.
    pub when_stat: BTreeMap<String, u64>,
    /// Start when these gauges of the proxy have these values, which they may come down to.
    pub when_gauge: BTreeMap<String, u64>,
    /// Replaces files below `{{dir}}` by a move before the request is sent: name to content.
    pub write: BTreeMap<String, String>,
    /// Give up after this many seconds (reset over HTTP/2, close over HTTP/1).
    pub cancel_after: Option<f64>,
    /// Give up when the upstream has seen so many requests.
    pub cancel_when_seen: BTreeMap<String, usize>,
    pub repeat: Option<usize>,
    /// Sent many times, of which only the share of each upstream is compared.
    pub distribution: Option<Distribution>,
    /// How the body is compared.
    pub compare: BodyCompare,
    /// Keep only the body's lines that match.
    pub lines: Option<String>,
    /// With `compare: json`: keys left out wherever they stand.
    pub drop_keys: Vec<String>,
    pub expect: Option<Expect>,
}

fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(d).map(Some)
}

/// A CONNECT tunnel over HTTP/2 and mutual TLS.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TunnelFields {
    pub authority: String,
    pub headers: Headers,
    /// Client certificate; default `client`, empty is none.
    pub cert: Option<String>,
    /// Tunnels of one name share a connection.
    pub connection: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BodyCompare {
    #[default]
    Text,
    Json,
    /// The set of lines.
    Lines,
    /// Lines with every value taken out: `name: 3` and `name{a="b"} 3` keep the name.
    Names,
    Ignore,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    /// Client certificate.
    pub cert: Option<String>,
    /// `1.2` or `1.3`.
    pub version: Option<String>,
}

/// What Envoy must answer for the case to mean what it says: a status, or more.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectFields {
    pub status: Option<u16>,
    /// A pattern the response (as printed) matches.
    pub response: Option<String>,
    /// A pattern some access-log line matches.
    pub log: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Expect(pub ExpectFields);

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let value = Value::deserialize(d)?;
        if let Some(status) = value.as_u64() {
            let status = u16::try_from(status).map_err(D::Error::custom)?;
            return Ok(Expect(ExpectFields {
                status: Some(status),
                ..Default::default()
            }));
        }
        serde_json::from_value(value).map(Expect).map_err(D::Error::custom)
    }
}

/// A request; the short form is `GET /path => 200` with an optional `h2` after the path.
#[derive(Clone, Debug, Default)]
pub struct Request(pub RequestFields);

impl std::ops::Deref for Request {
    type Target = RequestFields;
    fn deref(&self) -> &RequestFields {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match Value::deserialize(d)? {
            Value::String(s) => short(&s).map(Request).map_err(D::Error::custom),
            other => {
                let fields: RequestFields = serde_json::from_value(other).map_err(D::Error::custom)?;
                Ok(Request(fields))
            }
        }
    }
}

fn short(text: &str) -> Result<RequestFields> {
    let (line, expect) = match text.split_once("=>") {
        Some((line, status)) => (line, Some(status.trim().parse::<u16>()?)),
        None => (text, None),
    };
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        bail!("{text:?} is not `METHOD /path [h2] [=> status]`");
    };
    let h2 = match words.next() {
        None => false,
        Some("h2") => true,
        Some(other) => bail!("{other:?} in {text:?}"),
    };
    Ok(RequestFields {
        method: Some(method.into()),
        path: Some(path.into()),
        h2,
        expect: expect.map(|s| {
            Expect(ExpectFields {
                status: Some(s),
                ..Default::default()
            })
        }),
        ..Default::default()
    })
}
