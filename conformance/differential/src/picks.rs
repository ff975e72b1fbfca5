//! Where ring hash and Maglev place keys: 10,000 of them over 50 weighted hosts, and over the 45 that are left when five
//! are removed. A fleet that is half Envoy and half nuncio must place every key alike.
//!
//! The hosts are 127.0.0.1 to 127.0.0.50 on one port. `--record` writes what Envoy did to a file that a unit test of
//! nuncio reads; the test makes the same hosts by the same rules ([`endpoint`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::Proxy;
use crate::suite::Options;
use crate::{config, oracle, ports};

/// How many keys: `key-0`, `key-1` and so on in a header.
const KEYS: usize = 10_000;

/// How many hosts, numbered from 1.
const HOSTS: usize = 50;

/// The hosts that are removed.
const REMOVED: [usize; 5] = [3, 17, 22, 41, 50];

/// Requests sent before their answers are awaited.
const PIPELINED: usize = 50;

/// One letter stands for a host: the first for host 1.
const LETTERS: &[u8; 50] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwx";

/// How many picks of a placement are written out; of the rest there is a checksum.
const WRITTEN: usize = 200;

/// Each placement that is asked for: its name and what its cluster says.
fn placements() -> Vec<(&'static str, Value)> {
    let policy = |name: &str, message: &str, fields: Value| {
        let mut typed = fields;
        typed["@type"] =
            format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{message}").into();
        json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": name, "typed_config": typed}}]}})
    };
    let ring = |fields| policy("ring_hash", "RingHash", fields);
    let maglev = |fields| policy("maglev", "Maglev", fields);
    vec![
        ("ring", ring(json!({}))),
        ("ring-murmur", ring(json!({"hash_function": "MURMUR_HASH_2"}))),
        ("ring-large", ring(json!({"minimum_ring_size": 20000}))),
        (
            "ring-small",
            ring(json!({"minimum_ring_size": 100, "maximum_ring_size": 137})),
        ),
        ("ring-equal", ring(json!({}))),
        ("ring-key", ring(json!({}))),
        (
            "ring-hostname",
            ring(json!({"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}})),
        ),
        ("ring-locality", ring(json!({"locality_weighted_lb_config": {}}))),
        ("maglev", maglev(json!({}))),
        ("maglev-small", maglev(json!({"table_size": 503}))),
        ("maglev-tiny", maglev(json!({"table_size": 47}))),
        ("maglev-equal", maglev(json!({}))),
        ("maglev-key", maglev(json!({}))),
        (
            "maglev-hostname",
            maglev(json!({"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}})),
        ),
        ("maglev-locality", maglev(json!({"locality_weighted_lb_config": {}}))),
        (
            "legacy-ring",
            json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}}),
        ),
        (
            "legacy-maglev",
            json!({"lb_policy": "MAGLEV", "common_lb_config": {"locality_weighted_lb_config": {}}}),
        ),
    ]
}

/// Host `i` of a placement.
fn endpoint(placement: &str, i: usize, port: u16) -> Value {
    let mut endpoint = json!({
        "endpoint": {
            "hostname": format!("host-{i}.test"),
            "address": {"socket_address": {"address": format!("127.0.0.{i}"), "port_value": port}}
        },
    });
    if !placement.ends_with("-equal") {
        endpoint["load_balancing_weight"] = (1 + i * 7 % 10).into();
    }
    if placement.ends_with("-key") {
        endpoint["metadata"] = json!({"filter_metadata": {"envoy.lb": {"hash_key": format!("key of {i}")}}});
    }
    endpoint
}

/// Three localities, of which the second weighs twice and the third four times as much as the first.
fn assignment(placement: &str, removed: bool, port: u16) -> Value {
    let hosts = |zone: usize| -> Vec<Value> {
        (1..=HOSTS)
            .filter(|i| i % 3 == zone && !(removed && REMOVED.contains(i)))
            .map(|i| endpoint(placement, i, port))
            .collect()
    };
    let locality = |zone: usize| json!({"locality": {"zone": format!("z{zone}")}, "load_balancing_weight": 1 << zone, "lb_endpoints": hosts(zone)});
    json!({"cluster_name": name(placement, removed), "endpoints": [locality(0), locality(1), locality(2)]})
}

fn name(placement: &str, removed: bool) -> String {
    format!("{placement}{}", if removed { "-45" } else { "" })
}

fn bootstrap(port: u16, listener: u16, admin: u16) -> Value {
    let mut clusters = Vec::new();
    let mut routes = Vec::new();
    for (placement, fields) in placements() {
        for removed in [false, true] {
            let name = name(placement, removed);
            let mut cluster = json!({
                "name": name, "type": "STATIC", "connect_timeout": "5s",
                "load_assignment": assignment(placement, removed, port),
            });
            config::merge(&mut cluster, &fields);
            clusters.push(cluster);
            routes.push(json!({
                "match": {"path": format!("/{name}")},
                "route": {"cluster": name, "hash_policy": [{"header": {"header_name": "x-key"}}]},
                "response_headers_to_add": [{"header": {"key": "x-host", "value": "%UPSTREAM_HOST%"}}]
            }));
        }
    }
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "picks",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
    });
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{
                "name": "picks", "address": address(listener),
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]
            }],
            "clusters": clusters
        }
    })
}

/// Compares the picks of both proxies; with `record`, writes Envoy's instead. Returns how many keys landed elsewhere.
pub async fn run(options: &Options, record: bool) -> Result<usize> {
    let port = serve().await?;
    let scratch = tempfile::TempDir::new()?;
    let mut sides = Vec::new();
    let binaries = [Some(&options.envoy), options.nuncio.as_ref().filter(|_| !record)];
    for (number, binary) in binaries.into_iter().flatten().enumerate() {
        let (listener, admin) = (ports::free()?, ports::free()?);
        let path = scratch.path().join(format!("{number}.json"));
        config::write(&bootstrap(port, listener, admin), &path)?;
        let _proxy = Proxy::start(binary, &path, admin, &Default::default()).await?;
        let begun = Instant::now();
        sides.push(all_picks(listener).await?);
        println!("{}: {:.1?}", binary.display(), begun.elapsed());
    }
    if record {
        std::fs::write(record_path(), recorded(port, &sides[0]))?;
        println!("written to {}", record_path().display());
        return Ok(0);
    }
    let mut elsewhere = 0;
    for (name, envoy) in &sides[0] {
        let Some(nuncio) = sides.get(1).and_then(|side| side.get(name)) else {
            continue;
        };
        let different = envoy.bytes().zip(nuncio.bytes()).filter(|(a, b)| a != b).count();
        println!(
            "{name:<20} {} keys, {different} placed elsewhere than by Envoy",
            envoy.len()
        );
        elsewhere += different;
    }
    Ok(elsewhere)
}

/// Where a unit test of nuncio finds what Envoy did.
fn record_path() -> PathBuf {
    oracle::workspace().join("src/upstream/lb/hashing/envoy_picks.txt")
}

fn recorded(port: u16, picks: &BTreeMap<String, String>) -> String {
    let mut text = format!(
        "# Where Envoy 1.40 places the keys key-0, key-1 ... over hosts of the port {port}: a letter for each key, A for\n\
         # host 1. Written by `cargo run -p differential -- --picks --record`; src/picks.rs there tells which hosts and\n\
         # placements these are. After the name come the number of keys, the FNV-1a hash of all letters and the first.\n\
         port {port}\n"
    );
    for (name, letters) in picks {
        let first = &letters[..WRITTEN.min(letters.len())];
        text.push_str(&format!("{name} {} {:016x} {first}\n", letters.len(), fnv(letters)));
    }
    text
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

async fn all_picks(port: u16) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (placement, _) in placements() {
        for removed in [false, true] {
            let name = name(placement, removed);
            let letters = picks(port, &name).await.with_context(|| name.clone())?;
            all.insert(name, letters);
        }
    }
    Ok(all)
}

/// A letter for each key.
async fn picks(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut letters = String::with_capacity(KEYS);
    let mut answers = Vec::new();
    for from in (0..KEYS).step_by(PIPELINED) {
        let to = KEYS.min(from + PIPELINED);
        let requests: String = (from..to)
            .map(|key| format!("GET /{path} HTTP/1.1\r\nhost: picks\r\nx-key: key-{key}\r\n\r\n"))
            .collect();
        stream.write_all(requests.as_bytes()).await?;
        answers.clear();
        while count_heads(&answers) < to - from {
            let read = stream.read_buf(&mut answers);
            if tokio::time::timeout(Duration::from_secs(20), read).await?? == 0 {
                bail!("the proxy closed the connection");
            }
        }
        for head in String::from_utf8_lossy(&answers).split_terminator("\r\n\r\n") {
            letters.push(char::from(letter(head).with_context(|| head.to_owned())?));
        }
    }
    Ok(letters)
}

fn count_heads(bytes: &[u8]) -> usize {
    bytes.windows(4).filter(|w| w == b"\r\n\r\n").count()
}

/// The letter of the host that a response names.
fn letter(head: &str) -> Option<u8> {
    let line = head.lines().find_map(|l| l.strip_prefix("x-host: 127.0.0."))?;
    let number: usize = line.split(':').next()?.parse().ok()?;
    LETTERS.get(number.checked_sub(1)?).copied()
}

/// All hosts, which answer anything with an empty 200, on one port.
async fn serve() -> Result<u16> {
    let first = TcpListener::bind("127.0.0.1:0").await?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    for i in 2..=HOSTS {
        listeners.push(TcpListener::bind(format!("127.0.0.{i}:{port}")).await?);
    }
    for listener in listeners {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    }
    Ok(port)
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await? > 0 {
        let requests = count_heads(&bytes);
        if requests > 0 {
            bytes.clear();
            let answers = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".repeat(requests);
            stream.write_all(answers.as_bytes()).await?;
        }
    }
    Ok(())
}
