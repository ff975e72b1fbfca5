//! Listen sockets as clients see them: who serves a connection, where it comes from, and by which name it is reached.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr as UnixAddr, UnixStream},
        },
    },
};

use common::{Process, eventually, free_port, get, is_live, tcp};
use socket2::{Domain, Socket, Type};

struct Proxy {
    _process: Process,
    admin: u16,
}

const DIRECT: &str = "{filters: [{name: d, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: hi}}}]}";

const ECHO: &str = "{filters: [{name: e, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}";

impl Proxy {
    /// Starts with these `static_resources`, and waits until it serves.
    fn start(workers: usize, resources: &str) -> Self {
        let admin = free_port();
        let config = format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\n\
             static_resources:\n{resources}"
        );
        let process = Process::start(&["--concurrency", &workers.to_string(), "--config-yaml", &config]);
        let proxy = Self {
            _process: process,
            admin,
        };
        eventually("it serves", || is_live(admin));
        proxy
    }

    fn ask(&self, path: &str) -> Option<String> {
        get(self.admin, path)
    }
}

fn greeting(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn exact_balance_gives_every_worker_its_share() {
    let port = free_port();
    let proxy = Proxy::start(
        3,
        &format!(
            "  listeners:\n  - {{name: l, stat_prefix: l, address: {}, filter_chains: [{ECHO}], \
             connection_balance_config: {{exact_balance: {{}}}}, max_connections_to_accept_per_socket_event: 1}}\n",
            tcp(port)
        ),
    );
    let share = |worker: usize| {
        let stats = proxy.ask("/stats?filter=worker_").unwrap_or_default();
        let line = format!("listener.l.worker_{worker}.downstream_cx_active: ");
        let found = stats
            .lines()
            .find_map(|l| l.strip_prefix(&line)?.trim().parse::<usize>().ok());
        found.unwrap_or_default()
    };
    let shares = || [share(0), share(1), share(2)];
    let connect = || {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // The echo says that it was counted.
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        client
    };
    let mut clients: Vec<_> = (0..12).map(|_| connect()).collect();
    assert_eq!(shares(), [4, 4, 4]);
    // Whose connections end is first in line for the next ones.
    clients.truncate(6);
    eventually("half of them are gone", || shares().iter().sum::<usize>() == 6);
    clients.extend((0..3).map(|_| connect()));
    assert_eq!(shares(), [3, 3, 3]);
}

#[test]
fn unix_sockets_with_modes_and_abstract_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.sock");
    let name = format!("nuncio-test-{}", std::process::id());
    let _proxy = Proxy::start(
        2,
        &format!(
            "  listeners:\n  - {{name: p, address: {{pipe: {{path: {}, mode: 0o640}}}}, filter_chains: [{DIRECT}]}}\n  \
             - {{name: a, address: {{pipe: {{path: \"@{name}\"}}}}, filter_chains: [{DIRECT}], \
             connection_balance_config: {{exact_balance: {{}}}}}}\n",
            path.display()
        )
        .replace("0o640", "416"),
    );
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    for _ in 0..4 {
        assert_eq!(greeting(UnixStream::connect(&path).unwrap()), "hi");
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        assert_eq!(greeting(UnixStream::connect_addr(&address).unwrap()), "hi");
    }
}

/// Only with the rights that transparent sockets and namespaces take.
fn is_privileged() -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_ip_transparent_v4(true).is_ok()
}

#[test]
fn upstreams_see_the_clients_address() {
    if !is_privileged() {
        return;
    }
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = tcp(upstream.local_addr().unwrap().port());
    let port = free_port();
    let _proxy = Proxy::start(
        1,
        &format!(
            "  listeners:\n  - name: l\n    address: {}\n    listener_filters: [{{name: o, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc, mark: 7}}}}]\n    \
             filter_chains: [{{filters: [{{name: t, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}}}]}}]\n  \
             clusters:\n  - name: c\n    connect_timeout: 5s\n    load_assignment: {{cluster_name: c, endpoints: \
             [{{lb_endpoints: [{{endpoint: {{address: {to}}}}}]}}]}}\n",
            tcp(port)
        ),
    );
    for last in [7, 8] {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&SocketAddr::new(from, 0).into()).unwrap();
        client
            .connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())
            .unwrap();
        let (_, peer) = upstream.accept().unwrap();
        assert_eq!(peer.ip(), from);
    }
}

#[test]
fn a_listener_in_a_network_namespace() {
    if !is_privileged() {
        return;
    }
    let port = free_port();
    let address = format!(
        "{{socket_address: {{address: 127.0.0.1, port_value: {port}, network_namespace_filepath: /proc/self/ns/net}}}}"
    );
    let _proxy = Proxy::start(
        2,
        &format!("  listeners:\n  - {{name: l, address: {address}, filter_chains: [{DIRECT}]}}\n"),
    );
    assert_eq!(greeting(TcpStream::connect(("127.0.0.1", port)).unwrap()), "hi");
}
