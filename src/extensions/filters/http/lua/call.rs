//! `httpCall`: a request of a script's own to a cluster.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use mlua::{Lua, MultiValue, Table, Value};

use super::{handle::each_header, run::collect};
use crate::{
    http::{Body, Path, RequestHead, Scheme},
    server::Worker,
    tracing::{CallSpan, Span},
    upstream::client::{ChannelError, ClusterChannel, mark_own},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Bytes of an answer's body; a longer one is a failure.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Calls that nobody waits for, on one worker at a time; more are not made.
const MOST_CALLS: usize = 4096;

/// A call, ready to be made.
pub(super) struct Call {
    worker: Rc<Worker>,
    cluster: String,
    head: RequestHead,
    body: Bytes,
    /// None: as long as it takes.
    timeout: Option<Duration>,
    duplicates: bool,
    /// The span of the request it is made for.
    parent: Option<Span>,
    /// `trace_sampled: false`
    silent: bool,
    /// Nobody waits for the answer.
    pub asynchronous: bool,
}

/// What came back, or what stands for it.
pub(super) struct Answer {
    status: String,
    headers: HeaderMap,
    body: Vec<u8>,
    duplicates: bool,
}

impl Call {
    /// From the arguments of `httpCall`, the handle left out.
    pub fn new(worker: &Rc<Worker>, parent: Option<Span>, args: MultiValue) -> mlua::Result<Self> {
        let error = mlua::Error::runtime::<&str>;
        let mut args = args.into_iter();
        let mut next = || args.next().unwrap_or(Value::Nil);
        let (cluster, headers, body, options, asynchronous) = (next(), next(), next(), next(), next());
        let Value::String(cluster) = cluster else {
            return Err(error("bad argument #1 to 'httpCall' (string expected)"));
        };
        let Value::Table(headers) = headers else {
            return Err(error("bad argument #2 to 'httpCall' (table expected)"));
        };
        let mut call = Self {
            worker: worker.clone(),
            cluster: cluster.to_string_lossy(),
            head: super::stream::empty_request(),
            body: Bytes::new(),
            timeout: None,
            duplicates: false,
            parent,
            silent: false,
            asynchronous: false,
        };
        let mut forwarded = true;
        match options {
            Value::Table(options) => call.options(options, &mut forwarded)?,
            options => {
                call.asynchronous = match asynchronous {
                    Value::Nil => false,
                    Value::Boolean(asynchronous) => asynchronous,
                    _ => {
                        return Err(error("http call asynchronous flag must be 'true', 'false', or empty"));
                    }
                };
                call.timeout = timeout(&options)?;
            }
        }
        if worker.clusters.get(&call.cluster).is_none() {
            return Err(error("http call cluster invalid. Must be configured"));
        }
        call.fill_head(headers, forwarded)?;
        mark_own(&mut call.head.headers, call.timeout);
        match body {
            Value::Nil => {}
            Value::String(text) => {
                call.body = Bytes::copy_from_slice(&text.as_bytes());
                let length = HeaderValue::from(call.body.len());
                call.head.headers.insert(header::CONTENT_LENGTH, length);
            }
            _ => return Err(error("bad argument #3 to 'httpCall' (string expected)")),
        }
        Ok(call)
    }

    fn options(&mut self, options: Table, forwarded: &mut bool) -> mlua::Result<()> {
        let truth = |value: &Value| !matches!(value, Value::Nil | Value::Boolean(false));
        for pair in options.pairs::<String, Value>() {
            let (key, value) = pair?;
            match key.as_str() {
                "asynchronous" => self.asynchronous = truth(&value),
                "timeout_ms" => self.timeout = timeout(&value)?,
                "trace_sampled" => self.silent = !truth(&value),
                "return_duplicate_headers" => self.duplicates = truth(&value),
                "send_xff" => *forwarded = truth(&value),
                key => {
                    let text = format!("\"{key}\" is not valid key for httpCall() options");
                    return Err(mlua::Error::runtime(text));
                }
            }
        }
        Ok(())
    }

    fn fill_head(&mut self, table: Table, forwarded: bool) -> mlua::Result<()> {
        let head = &mut self.head;
        let (mut method, mut path) = (None, None);
        each_header(table, |name, value| {
            let text = str::from_utf8(value).unwrap_or_default();
            match name {
                ":method" => method = Method::from_bytes(value).ok(),
                ":path" => path = Path::new(Bytes::copy_from_slice(value)),
                ":scheme" if text == "https" => head.scheme = Scheme::Https,
                ":authority" | "host" => head.authority = HeaderValue::from_bytes(value).ok(),
                name => {
                    if let (Ok(name), Ok(value)) =
                        (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
                    {
                        head.headers.append(name, value);
                    }
                }
            }
        })?;
        let (Some(method), Some(path), Some(_)) = (method, path, &head.authority) else {
            return Err(mlua::Error::runtime(
                "http call headers must include ':path', ':method', and ':authority'",
            ));
        };
        (head.method, head.path, head.version) = (method, Some(path), Version::HTTP_11);
        if forwarded && let Some(ip) = local_ip() {
            head.headers.append(FORWARDED_FOR, ip);
        }
        Ok(())
    }

    /// Makes the call. There always is an answer: a failure is one of Envoy's own.
    pub async fn perform(mut self) -> Answer {
        let duplicates = self.duplicates;
        let answer = |status: &str, text: &str| Answer {
            status: status.to_owned(),
            headers: HeaderMap::new(),
            body: text.into(),
            duplicates,
        };
        let span = CallSpan::http(self.parent.as_ref(), &self.cluster).silent_if(self.silent);
        span.inject(&mut self.head.headers);
        let channel = ClusterChannel::new(self.worker, self.cluster, None);
        let body = Body::full(self.body);
        let call = async {
            let response = channel.send(self.head, body).await?;
            let conn = &response.conn;
            span.http_answer(response.head.status.as_u16(), conn.protocol, &conn.remote_address);
            let body = collect(response.body.into(), MOST_BYTES).await;
            Ok::<_, ChannelError>((response.head, body))
        };
        let outcome = match self.timeout {
            None => Some(call.await),
            Some(limit) => tokio::time::timeout(limit, call)
                .await
                .inspect_err(|_| channel.timed_out())
                .ok(),
        };
        match outcome {
            Some(Ok((head, Some(body)))) => Answer {
                status: head.status.as_str().to_owned(),
                headers: head.headers,
                body,
                duplicates,
            },
            Some(Ok((_, None))) => answer("503", "upstream failure"),
            Some(Err(ChannelError::NoHealthyUpstream(_))) => answer("503", "no healthy upstream"),
            Some(Err(_)) => answer(
                "503",
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            ),
            None => answer("504", "upstream request timeout"),
        }
    }
}

/// Makes a call whose answer nobody waits for.
pub(super) fn spawn(call: Call) {
    thread_local! {
        static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
    }
    if UNDER_WAY.get() >= MOST_CALLS {
        tracing::warn!(target: "lua", "an asynchronous httpCall is not made: {MOST_CALLS} are under way");
        return;
    }
    UNDER_WAY.set(UNDER_WAY.get() + 1);
    tokio::task::spawn_local(async move {
        call.perform().await;
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    });
}

impl Answer {
    /// The results of `httpCall`: the headers as a table, and the body if there is one.
    pub fn push(&self, lua: &Lua) -> mlua::Result<MultiValue> {
        let table = lua.create_table()?;
        table.set(":status", self.status.as_str())?;
        for name in self.headers.keys() {
            let values: Vec<_> = self.headers.get_all(name).iter().collect();
            match (values.as_slice(), self.duplicates) {
                ([.., last], false) | ([last], true) => {
                    table.set(name.as_str(), lua.create_string(last.as_bytes())?)?;
                }
                (all, _) => {
                    let strings = all.iter().map(|v| lua.create_string(v.as_bytes()));
                    let list = lua.create_sequence_from(strings.collect::<mlua::Result<Vec<_>>>()?)?;
                    table.set(name.as_str(), list)?;
                }
            }
        }
        let body = match self.body.is_empty() {
            true => Value::Nil,
            false => Value::String(lua.create_string(&self.body)?),
        };
        Ok(MultiValue::from_iter([Value::Table(table), body]))
    }
}

/// Milliseconds; zero is none.
fn timeout(value: &Value) -> mlua::Result<Option<Duration>> {
    let ms = match value {
        Value::Integer(ms) => *ms,
        Value::Number(ms) => *ms as i64,
        Value::String(text) => text.to_string_lossy().trim().parse().unwrap_or(-1),
        _ => return Err(mlua::Error::runtime("bad argument #4 to 'httpCall' (number expected)")),
    };
    match u64::try_from(ms) {
        Err(_) => Err(mlua::Error::runtime("http call timeout must be >= 0")),
        Ok(0) => Ok(None),
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
    }
}

/// The address that stands for this proxy in `x-forwarded-for`: that of a route to the outside, looked up once.
fn local_ip() -> Option<HeaderValue> {
    use std::{net::UdpSocket, sync::OnceLock};
    static IP: OnceLock<Option<HeaderValue>> = OnceLock::new();
    IP.get_or_init(|| {
        // Connecting a datagram socket sends nothing.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        let known = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
        let ip = known.map_or_else(|_| "127.0.0.1".to_owned(), |a| a.ip().to_string());
        HeaderValue::try_from(ip).ok()
    })
    .clone()
}
