//! Istio's private filters on a proxy that runs: who the peers of a request are, and how proxies tell one another.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use common::{Process, ask, eventually, free_port, get, is_live, tcp};

/// This proxy's workload.
const NODE: &str = "
  id: sidecar~10.0.0.1~productpage~default
  cluster: productpage
  metadata:
    NAME: productpage-v1-pod
    NAMESPACE: default
    WORKLOAD_NAME: productpage-v1
    OWNER: kubernetes://apis/apps/v1/namespaces/default/deployments/productpage-v1
    LABELS: {service.istio.io/canonical-name: productpage, app: productpage, version: v1, role: front}
";

const WORKLOADS: &str = "
version_info: '1'
resources:
- '@type': type.googleapis.com/istio.workload.Workload
  uid: cluster/Pod/default/laptop
  name: laptop
  namespace: home
  workload_name: laptop-v1
  canonical_name: laptop
  addresses: [fwAAAQ==]
";

struct Proxy {
    _process: Process,
    admin: u16,
    dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts with these `static_resources`, in which `LOG` is a file for access logs and `DIR` its directory.
    fn start(resources: &str, files: &[(&str, String)]) -> Self {
        let (admin, dir) = (free_port(), tempfile::tempdir().unwrap());
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join("workloads.yaml"), WORKLOADS).unwrap();
        let config = format!(
            "node: {NODE}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
bootstrap_extensions:
- name: envoy.bootstrap.internal_listener
  typed_config:
    '@type': type.googleapis.com/udpa.type.v1.TypedStruct
    type_url: type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener
- name: metadata_discovery
  typed_config:
    '@type': type.googleapis.com/xds.type.v3.TypedStruct
    type_url: type.googleapis.com/istio.workload.BootstrapExtension
    value: {{configSource: {{pathConfigSource: {{path: DIR/workloads.yaml}}}}}}
static_resources:
{resources}"
        );
        let path = dir.path().join("config.yaml");
        fs::write(&path, config.replace("DIR", &dir.path().display().to_string())).unwrap();
        let flags = ["--file-flush-interval-msec", "10", "-c", path.to_str().unwrap()];
        let proxy = Self {
            _process: Process::start(&flags),
            admin,
            dir,
        };
        eventually("it serves, and knows the workloads", || {
            is_live(admin) && proxy.stat("workload_discovery.total") == 1
        });
        proxy
    }

    fn stat(&self, name: &str) -> u64 {
        let stats = get(self.admin, &format!("/stats?filter=^{name}$")).unwrap_or_default();
        let value = stats
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or_default()
    }

    /// Waits for a line of an access log.
    fn logged(&self, file: &str, line: &str) {
        let path: PathBuf = self.dir.path().join(file);
        let has = || fs::read_to_string(&path).unwrap_or_default().lines().any(|l| l == line);
        let began = Instant::now();
        while !has() {
            let all = fs::read_to_string(&path).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(20), "no {line:?} in {all}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What an echo makes of `text`, the end included.
fn echo(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn any(name: &str, type_: &str, more: &str) -> String {
    format!("{{name: {name}, typed_config: {{'@type': type.googleapis.com/{type_}, {more}}}}}")
}

/// A configuration as istiod sends it.
fn typed_struct(name: &str, type_: &str, value: &str) -> String {
    let url = format!("type_url: type.googleapis.com/{type_}");
    any(name, "udpa.type.v1.TypedStruct", &format!("{url}, value: {{{value}}}"))
}

fn log(file: &str, format: &str) -> String {
    let format = format!("path: DIR/{file}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}");
    any("log", "envoy.extensions.access_loggers.file.v3.FileAccessLog", &format)
}

/// A connection manager with these filters; `routes` are all routes of its virtual host.
fn hcm(filters: &str, routes: &str, log: &str) -> String {
    let router = any("router", "envoy.extensions.filters.http.router.v3.Router", "");
    let routes = format!("{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]}}");
    let comma = if filters.is_empty() { "" } else { ", " };
    any(
        "hcm",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &format!(
            "stat_prefix: h, route_config: {routes}, access_log: [{log}], http_filters: [{filters}{comma}{router}], \
             http2_protocol_options: {{allow_connect: true}}, upgrade_configs: [{{upgrade_type: CONNECT}}]"
        ),
    )
}

fn tcp_proxy(cluster: &str, more: &str) -> String {
    let config = format!("stat_prefix: t, cluster: {cluster}{more}");
    any("tcp", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", &config)
}

fn listener(name: &str, port: u16, filters: &str) -> String {
    format!(
        "  - {{name: {name}, address: {}, filter_chains: [{{filters: [{filters}]}}]}}\n",
        tcp(port)
    )
}

fn cluster(name: &str, port: u16, more: &str) -> String {
    let endpoint = format!("{{endpoint: {{address: {}}}}}", tcp(port));
    let endpoints = format!("load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}");
    format!("  - {{name: {name}, connect_timeout: 5s, {endpoints}{more}}}\n")
}

const HTTP2: &str = ", typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
    explicit_http_config: {http2_protocol_options: {}}}}";

const PEER_METADATA: &str = "io.istio.http.peer_metadata.Config";
const EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

fn to(cluster: &str) -> String {
    format!("{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}")
}

fn answers(text: &str) -> String {
    format!("{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: '{text}'}}}}}}")
}

#[test]
fn peers_of_requests() {
    let (client, server, external) = (free_port(), free_port(), free_port());
    // As sidecars have it; the server's filter is discovered.
    let discovered = "{name: mx, config_discovery: {config_source: {path_config_source: {path: DIR/mx.yaml}}, \
        type_urls: [envoy.extensions.filters.http.wasm.v3.Wasm, io.istio.http.peer_metadata.Config]}}";
    let mx = "
version_info: '1'
resources:
- '@type': type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: mx
  typed_config:
    '@type': type.googleapis.com/udpa.type.v1.TypedStruct
    type_url: type.googleapis.com/io.istio.http.peer_metadata.Config
    value:
      downstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}]
      downstream_propagation: [{istio_headers: {}}]
      additional_labels: [role]
";
    let outbound = |skip: &str| {
        typed_struct(
            "mx",
            PEER_METADATA,
            &format!(
                "upstreamDiscovery: [{{istioHeaders: {{}}}}, {{workloadDiscovery: {{}}}}], \
                 upstreamPropagation: [{{istioHeaders: {{skipExternalClusters: {skip}}}}}], additionalLabels: [role]"
            ),
        )
    };
    let server_log = log(
        "server",
        "%REQ(x-case)% %FILTER_STATE(downstream_peer_obj:FIELD:workload)% \
         %CEL(filter_state.downstream_peer.labels['role'])% %REQ(x-envoy-peer-metadata-id)%",
    );
    let client_log = |file| {
        log(
            file,
            "%REQ(x-case)% %FILTER_STATE(upstream_peer_obj:FIELD:workload)% %RESP(x-envoy-peer-metadata-id)%",
        )
    };
    let outside = ", metadata: {filter_metadata: {istio: {external: true}}}";
    let resources = format!(
        "  listeners:\n{}{}{}  clusters:\n{}{}",
        listener("server", server, &hcm(discovered, &answers("hi"), &server_log)),
        listener(
            "client",
            client,
            &hcm(&outbound("false"), &to("mesh"), &client_log("client"))
        ),
        listener(
            "egress",
            external,
            &hcm(&outbound("true"), &to("outside"), &client_log("egress"))
        ),
        cluster("mesh", server, ""),
        cluster("outside", server, outside),
    );
    let proxy = Proxy::start(&resources, &[("mx.yaml", mx.to_owned())]);

    let answer = ask(client, "/", "x", "x-case: mesh\r\n").unwrap();
    assert!(
        answer.contains(" 200 OK") && !answer.contains("x-envoy-peer-metadata"),
        "{answer}"
    );
    proxy.logged("server", "mesh productpage-v1 front -");
    proxy.logged("client", "mesh productpage-v1 -");

    // Who tells nothing is told nothing, and is looked up by its address.
    let answer = ask(server, "/", "x", "x-case: plain\r\n").unwrap();
    assert!(!answer.contains("x-envoy-peer-metadata"), "{answer}");
    proxy.logged("server", "plain laptop-v1 - -");
    ask(external, "/", "x", "x-case: outside\r\n").unwrap();
    proxy.logged("server", "outside laptop-v1 - -");
    proxy.logged("egress", "outside laptop-v1 -");

    // Metadata that cannot be read cost nothing but their label.
    for (case, value) in [("base64", "!!!"), ("proto", "//////8="), ("long", &*"A".repeat(20_000))] {
        let answer = ask(
            server,
            "/",
            "x",
            &format!("x-case: {case}\r\nx-envoy-peer-metadata: {value}\r\n"),
        )
        .unwrap();
        assert!(answer.contains(" 200 OK"), "{answer}");
        assert!(answer.contains("x-envoy-peer-metadata: "), "{answer}");
        assert!(!answer.contains("x-envoy-peer-metadata-id"), "{answer}");
        proxy.logged("server", &format!("{case} laptop-v1 - -"));
    }
    // What one client says of another's name is not believed of the other.
    let ids = "x-envoy-peer-metadata-id: sidecar~10.0.0.1~productpage~default\r\nx-envoy-peer-metadata: CgA=\r\n";
    ask(server, "/", "x", &format!("x-case: forged\r\n{ids}")).unwrap();
    ask(client, "/", "x", "x-case: honest\r\n").unwrap();
    proxy.logged("server", "honest productpage-v1 front -");

    // A gateway between networks has its own address, not the client's.
    ask(server, "/", "x", "x-case: remote\r\nx-forwarded-network: other\r\n").unwrap();
    proxy.logged("server", "remote - - -");
    // Workloads come and go.
    let path = proxy.dir.path().join("workloads.yaml");
    fs::write(
        proxy.dir.path().join("new"),
        WORKLOADS.replace("laptop-v1", "laptop-v2"),
    )
    .unwrap();
    fs::rename(proxy.dir.path().join("new"), path).unwrap();
    eventually("the workload changed", || {
        ask(server, "/", "x", "x-case: changed\r\n").unwrap();
        let log = fs::read_to_string(proxy.dir.path().join("server")).unwrap();
        log.contains("changed laptop-v2")
    });
}

fn certificate() -> [(&'static str, String); 2] {
    let made = rcgen::generate_simple_self_signed(vec!["mesh".to_owned()]).unwrap();
    [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
    ]
}

fn server_tls(alpn: &str) -> String {
    any(
        "tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        &format!(
            "common_tls_context: {{alpn_protocols: [{alpn}], tls_certificates: [{{certificate_chain: \
             {{filename: DIR/cert.pem}}, private_key: {{filename: DIR/key.pem}}}}]}}"
        ),
    )
}

fn client_tls(alpn: &str) -> String {
    let context = format!("common_tls_context: {{alpn_protocols: [{alpn}]}}");
    let socket = typed_struct(
        "tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        &context,
    );
    format!(", transport_socket: {socket}")
}

#[test]
fn connections_begin_with_an_exchange() {
    let (client, other, server, echoing) = (free_port(), free_port(), free_port(), free_port());
    let exchange = typed_struct("mx", EXCHANGE, "protocol: istio-peer-exchange, enable_discovery: true");
    let echo_filter = any("echo", "envoy.extensions.filters.network.echo.v3.Echo", "");
    let server_log = log(
        "server",
        "%FILTER_STATE(downstream_peer_obj:FIELD:workload)% %FILTER_STATE(upstream_peer_obj:FIELD:workload)%",
    );
    let client_log = |name: &str| log(name, "%UPSTREAM_FILTER_STATE(upstream_peer_obj:FIELD:workload)%");
    let proxied = |cluster: &str, log: String| tcp_proxy(cluster, &format!(", access_log: [{log}]"));
    let filters = format!(", filters: [{}]", exchange.replace("name: mx", "name: upstream_mx"));
    let chain = format!(
        "{{transport_socket: {}, filters: [{exchange}, {}]}}",
        server_tls("istio-peer-exchange, other"),
        proxied("echo", server_log),
    );
    let resources = format!(
        "  listeners:\n  - {{name: server, address: {}, filter_chains: [{chain}]}}\n{}{}{}  clusters:\n{}{}{}",
        tcp(server),
        listener("client", client, &proxied("mesh", client_log("client"))),
        listener("other", other, &proxied("other", client_log("other"))),
        listener("echo", echoing, &echo_filter),
        cluster(
            "mesh",
            server,
            &format!("{}{filters}", client_tls("istio-peer-exchange"))
        ),
        cluster("other", server, &format!("{}{filters}", client_tls("other"))),
        cluster("echo", echoing, ""),
    );
    let proxy = Proxy::start(&resources, &certificate());
    assert_eq!(echo(client, "hello"), "hello");
    proxy.logged("client", "productpage-v1");
    proxy.logged("server", "productpage-v1 -");
    assert_eq!(proxy.stat("metadata_exchange.alpn_protocol_found"), 2);
    assert_eq!(proxy.stat("metadata_exchange.metadata_added"), 2);
    let large = "0123456789".repeat(100_000);
    assert!(echo(client, &large) == large);

    // Without the protocol nothing is exchanged, and addresses tell.
    assert_eq!(echo(other, "hello"), "hello");
    proxy.logged("other", "laptop-v1");
    proxy.logged("server", "laptop-v1 laptop-v1");
    assert_eq!(proxy.stat("metadata_exchange.alpn_protocol_not_found"), 2);
    assert_eq!(proxy.stat("metadata_exchange.header_not_found"), 0);
}

#[test]
fn alpn_tells_mesh_traffic_apart() {
    let (client, server) = (free_port(), free_port());
    let alpn = typed_struct(
        "istio.alpn",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "alpn_override: [{upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1]}, \
         {upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2]}]",
    );
    let chain = |matched: &str, text: &str| {
        let filters = hcm("", &answers(text), "");
        let tls = server_tls("h2, http/1.1");
        format!("{{filter_chain_match: {{{matched}}}, transport_socket: {tls}, filters: [{filters}]}}")
    };
    let inspector = any(
        "i",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "",
    );
    let routes = ["plain", "mesh", "mesh2"]
        .map(|name| format!("{{match: {{path: /{name}}}, route: {{cluster: {name}}}}}"))
        .join(", ");
    let off = ", metadata: {filter_metadata: {istio: {alpn_override: 'false'}}}";
    let resources = format!(
        "  listeners:\n  - {{name: server, address: {}, listener_filters: [{inspector}], filter_chains: [{}, {}, {}]}}\n{}  \
         clusters:\n{}{}{}",
        tcp(server),
        chain("application_protocols: [istio-http/1.1]", "in mesh"),
        chain("application_protocols: [istio-h2]", "in mesh by h2"),
        chain("", "outside"),
        listener("client", client, &hcm(&alpn, &routes, "")),
        cluster("mesh", server, &client_tls("http/1.1")),
        cluster("mesh2", server, &format!("{}{HTTP2}", client_tls("h2"))),
        cluster("plain", server, &format!("{}{off}", client_tls("http/1.1"))),
    );
    let _proxy = Proxy::start(&resources, &certificate());
    for (path, expected) in [("/mesh", "in mesh"), ("/plain", "outside"), ("/mesh2", "in mesh by h2")] {
        let answer = get(client, path).unwrap();
        assert!(
            answer.contains(" 200 OK") && answer.ends_with(expected),
            "{path}: {answer}"
        );
    }
}

#[test]
fn the_answer_of_a_tunnel_tells_of_the_upstream() {
    let (waypoint, terminate, server) = (free_port(), free_port(), free_port());
    let metadata = typed_struct(
        "mx",
        PEER_METADATA,
        "upstream_discovery: [{upstream_filter_state: {peer_metadata_key: upstream_peer}}]",
    );
    let network = |name: &str, type_: &str, value: &str| {
        typed_struct(
            name,
            &format!("envoy.extensions.network_filters.peer_metadata.{type_}"),
            value,
        )
    };
    let tunnel = tcp_proxy(
        "tunnel",
        ", tunneling_config: {hostname: 'x:80', propagate_response_headers: true, headers_to_add: [{header: \
         {key: baggage, value: '%FILTER_STATE(io.istio.baggage:PLAIN)%'}}]}",
    );
    let originate = format!(
        "  - {{name: connect_originate, internal_listener: {{}}, filter_chains: [{{filters: [{}, {tunnel}]}}]}}\n",
        network("peer", "Config", "baggage_key: io.istio.baggage"),
    );
    let told = "k8s.deployment.name=reviews-v1,service.name=reviews,service.version=v1,k8s.namespace.name=books";
    let connect = format!(
        "{{match: {{connect_matcher: {{}}}}, route: {{cluster: server, upgrade_configs: [{{upgrade_type: CONNECT, \
         connect_config: {{}}}}]}}, response_headers_to_add: [{{header: {{key: baggage, value: '{told}'}}}}]}}"
    );
    let internal = |name: &str, more: &str| {
        let host = "{endpoint: {address: {envoy_internal_address: {server_listener_name: connect_originate, \
            endpoint_id: '10.0.0.2:80'}}}}";
        let endpoints = format!("load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{host}]}}]}}");
        format!("  - {{name: {name}, connect_timeout: 5s, {endpoints}{more}}}\n")
    };
    let upstream = format!(", filters: [{}]", network("peer", "UpstreamConfig", ""));
    let off = ", metadata: {filter_metadata: {istio.peer_metadata: {disable_baggage_discovery: true}}}";
    let waypoint_log = log(
        "waypoint",
        "%REQ(:path)% %FILTER_STATE(upstream_peer_obj:FIELD:workload)% \
         %FILTER_STATE(upstream_peer_obj:FIELD:namespace)%",
    );
    let routes = "{match: {path: /told}, route: {cluster: told}}, {match: {path: /quiet}, route: {cluster: quiet}}";
    let resources = format!(
        "  listeners:\n{originate}{}{}{}  clusters:\n{}{}{}{}",
        listener("waypoint", waypoint, &hcm(&metadata, routes, &waypoint_log)),
        listener(
            "terminate",
            terminate,
            &hcm("", &connect, &log("tunnel", "%REQ(baggage)%"))
        ),
        listener("server", server, &hcm("", &answers("hi"), "")),
        internal("told", &upstream),
        internal("quiet", &format!("{upstream}{off}")),
        cluster("tunnel", terminate, HTTP2),
        cluster("server", server, ""),
    );
    let proxy = Proxy::start(&resources, &[]);
    for path in ["/told", "/quiet"] {
        let answer = get(waypoint, path).unwrap();
        assert!(answer.ends_with("hi"), "{answer}");
    }
    proxy.logged("waypoint", "/told reviews-v1 books");
    proxy.logged("waypoint", "/quiet - -");
}
