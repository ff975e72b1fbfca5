//! Random HTTP/1 requests, most of them slightly wrong, through both proxies: do they agree where a
//! request ends? A proxy that tells its upstream other requests than Envoy would is a hole
//! (request smuggling); one that only answers with another status is a nuisance.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::case::Source;
use crate::suite::{Options, Prepared, Side, Suite};
use crate::text;

/// A connection that neither answers nor closes for so long is taken as waiting for more.
const QUIET: Duration = Duration::from_millis(400);

/// What is sent after each request; it ends the connection if it is understood as a request.
const SENTINEL: &str = "GET /sentinel HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

const METHODS: &[&str] = &[
    "GET", "POST", "POST", "POST", "PUT", "HEAD", "OPTIONS", "get", "P@ST", "POST\t", "TRACE",
];
const TARGETS: &[&str] = &[
    "/",
    "/",
    "/a?b=c",
    "/a b",
    "*",
    "//x",
    "/%00",
    "/\u{80}",
    "http://h.test/x",
    "x",
    "/\u{1}",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "http/1.1",
    "HTTP/1.1 ",
];
const ENDS: &[&str] = &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\r\n", "\r"];
const LENGTH_NAMES: &[&str] = &[
    "Content-Length",
    "content-length",
    "Content-Length ",
    " Content-Length",
    "Content_Length",
    "Content-Length\u{b}",
];
const LENGTHS: &[&str] = &[
    "3",
    "3",
    "3",
    "0",
    "03",
    "+3",
    "-1",
    "3, 3",
    "3,4",
    "0x3",
    " 3 ",
    "3\t",
    "3\u{b}",
    "",
    "99999999999999999999",
    "5",
];
const ENCODING_NAMES: &[&str] = &[
    "Transfer-Encoding",
    "transfer-encoding",
    "Transfer-Encoding ",
    "Transfer\u{1}-Encoding",
    "Transfer_Encoding",
];
const ENCODINGS: &[&str] = &[
    "chunked",
    "chunked",
    "chunked",
    "Chunked",
    " chunked\t",
    "\u{b}chunked",
    "identity",
    "chunked, identity",
    "identity, chunked",
    "xchunked",
    "\"chunked\"",
    "chunked;q=1",
    "chunked, chunked",
    "gzip",
    "",
];
const OTHERS: &[&str] = &[
    "host: x",
    "host: y",
    "host: ",
    "host : x",
    "Connection: close",
    "Connection: upgrade",
    "Upgrade: h2c",
    "a: b",
    "a: \u{ff}",
    "a: b\u{0}c",
    "no colon",
    ": empty",
    "a: b\r\n folded",
    "a\u{1}b: c",
    "a: b\rc",
    "a: b\nc: d",
    "Expect: 100-continue",
    "TE: trailers",
];
const BODIES: &[&str] = &[
    "",
    "abc",
    "abc",
    "3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "3;x=y\r\nabc\r\n0\r\n\r\n",
    "3\nabc\n0\n\n",
    "03\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nabc0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "-3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\nt: v\r\n\r\n",
    "3\r\nabc\r\n0\r\ncontent-length: 4\r\n\r\n",
    "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
    "3;\u{1}\r\nabc\r\n0\r\n\r\n",
    "3;x=\"\n\"\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n00\r\n\r\n",
    "3\r\nabc\r\n0\r\n",
    "abcGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
    "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
];

/// The one case all requests go through.
fn source() -> Source {
    Source {
        id: "smuggle/all".into(),
        path: "smuggle".into(),
        yaml: json!({
            "isolated": true,
            "access_log": false,
            "hcm": {"delayed_close_timeout": "0.05s", "stream_idle_timeout": "2s"},
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
        }),
    }
}

/// Sends `count` requests made from `seed` on through both proxies and prints where they disagree.
/// Returns the number of requests of which our upstream saw what Envoy's did not.
pub async fn run(options: &Options, seed: u64, count: u64) -> Result<usize> {
    let source = source();
    let scratch = tempfile::TempDir::new()?;
    let suite = Suite::new(options, scratch.path())?;
    let envoy = suite.start(&[&source], &options.envoy, "envoy").await?;
    let nuncio = suite
        .start(
            &[&source],
            options.nuncio.as_ref().context("there is no nuncio")?,
            "nuncio",
        )
        .await?;
    let (mut holes, mut stricter, mut statuses) = (0, 0, 0);
    for n in seed..seed + count {
        let request = request(&mut fastrand::Rng::with_seed(n));
        let (a, b) = tokio::try_join!(through(&envoy, &source, &request), through(&nuncio, &source, &request))?;
        if a == b {
            continue;
        }
        let kind = match () {
            () if a.seen == b.seen => {
                statuses += 1;
                "status  "
            }
            // Nothing reached the upstream that Envoy would not have sent.
            () if a.seen.starts_with(&b.seen) => {
                stricter += 1;
                "stricter"
            }
            () => {
                holes += 1;
                "UPSTREAM"
            }
        };
        println!("{kind} seed {n}: {}", text::to_bytes(&request).escape_ascii());
        println!("    envoy:  {a}\n    nuncio: {b}");
    }
    println!(
        "{count} requests: {holes} seen differently by the upstream, {stricter} refused where Envoy sends them on, \
         {statuses} answered differently"
    );
    Ok(holes)
}

#[derive(PartialEq)]
struct Exchange {
    /// Status of each response, and how the connection ended.
    answers: String,
    /// Request line and body of each request the upstream saw.
    seen: Vec<Value>,
}

impl std::fmt::Display for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} upstream saw {}", self.answers, Value::from(self.seen.clone()))
    }
}

async fn through(side: &Side, source: &Source, request: &str) -> Result<Exchange> {
    let prepared: &Prepared = side.prepared.get(&source.id).context("not prepared")?;
    if let Some(reason) = side.refused.get(&source.id) {
        anyhow::bail!("configuration refused: {reason}");
    }
    let mut stream = TcpStream::connect(("127.0.0.1", prepared.target.scope.port)).await?;
    let mut bytes = text::to_bytes(request);
    bytes.extend_from_slice(SENTINEL.as_bytes());
    let _ = stream.write_all(&bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        match tokio::time::timeout(QUIET, stream.read(&mut chunk)).await {
            Err(_) => break "waits",
            Ok(Ok(0) | Err(_)) => break "closed",
            Ok(Ok(n)) => answer.extend_from_slice(&chunk[..n]),
        }
    };
    drop(stream);
    let text = String::from_utf8_lossy(&answer);
    let codes = text
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(|s| s.get(..3))
        .collect::<Vec<_>>()
        .join(" ");
    let backend = prepared.target.backends.get("up").context("no upstream")?;
    let seen = backend
        .state
        .drain()
        .into_iter()
        .map(|mut r| json!([r["request"].take(), r["body"].take()]))
        .collect();
    Ok(Exchange {
        answers: format!("[{codes}] {end}"),
        seen,
    })
}

fn request(rng: &mut fastrand::Rng) -> String {
    let pick = |rng: &mut fastrand::Rng, list: &[&'static str]| list[rng.usize(..list.len())];
    // Most parts are right most of the time, so that a request gets far enough to matter.
    let rarely =
        |rng: &mut fastrand::Rng, list: &[&'static str]| if rng.u8(..6) == 0 { pick(rng, list) } else { list[0] };
    let method = if rng.u8(..6) == 0 { pick(rng, METHODS) } else { "POST" };
    let mut out = format!("{method} {} {}", rarely(rng, TARGETS), rarely(rng, VERSIONS));
    out.push_str(rarely(rng, ENDS));
    let mut headers = vec![
        (if rng.u8(..10) == 0 {
            pick(rng, OTHERS)
        } else {
            "host: x"
        })
        .to_owned(),
    ];
    if rng.bool() {
        headers.push(format!("{}: {}", rarely(rng, LENGTH_NAMES), pick(rng, LENGTHS)));
    }
    if rng.bool() {
        headers.push(format!("{}: {}", rarely(rng, ENCODING_NAMES), pick(rng, ENCODINGS)));
    }
    for _ in 0..rng.usize(..3) {
        headers.push(pick(rng, OTHERS).to_owned());
    }
    rng.shuffle(&mut headers);
    for header in headers {
        out.push_str(&header);
        out.push_str(rarely(rng, ENDS));
    }
    out.push_str(rarely(rng, ENDS));
    out.push_str(pick(rng, BODIES));
    out
}
