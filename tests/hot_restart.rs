//! Hot restart, as a restarter drives it: processes of one base id, each of one epoch more than the one before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use common::{eventually, free_port, get};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_nuncio");

/// A line of processes: their socket, what they listen at.
struct Line {
    dir: TempDir,
    admin: u16,
    port: u16,
}

impl Line {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            admin: free_port(),
            port: free_port(),
        }
    }

    /// Where the process of an epoch listens for the next.
    fn socket(&self, epoch: u32) -> PathBuf {
        self.dir.path().join(format!("hr_parent_{}", 70 + epoch % 3))
    }

    fn bootstrap(&self, more: &str) -> String {
        let Self { admin, port, .. } = self;
        format!(
            r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
stats_flush_interval: 0.1s
{more}
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
            virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: hello}}}}}}]}}]
          http_filters: [{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
"#
        )
    }

    fn start(&self, epoch: u32, more: &[&str]) -> Process {
        self.start_with(
            epoch,
            &self.bootstrap(""),
            &[&["--parent-shutdown-time-s", "2"], more].concat(),
        )
    }

    fn start_with(&self, epoch: u32, bootstrap: &str, more: &[&str]) -> Process {
        let log = self.dir.path().join(format!("{epoch}.log"));
        let child = Command::new(BINARY)
            .args(["--base-id", "7", "--restart-epoch", &epoch.to_string()])
            .args(["--concurrency", "2", "--drain-time-s", "1"])
            .arg("--socket-path")
            .arg(self.dir.path().join("hr"))
            .args(["--config-yaml", bootstrap])
            .args(more)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Process { child, log }
    }

    fn stat(&self, name: &str) -> Option<u64> {
        let all = get(self.admin, "/stats")?;
        let line = all.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))?;
        line.trim().parse().ok()
    }

    fn serves(&self, epoch: u64) {
        eventually(&format!("epoch {epoch} serves"), || {
            self.stat("server.hot_restart_epoch") == Some(epoch) && self.stat("server.live") == Some(1)
        });
    }

    fn request(&self) -> bool {
        get(self.port, "/").is_some_and(|a| a.ends_with("hello\r\n0\r\n\r\n") || a.ends_with("hello"))
    }
}

struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// The exit status, once the process has ended by itself.
    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn fails_with(&mut self, text: &str) {
        assert_eq!(self.ended().code(), Some(1));
        let log = read(&self.log);
        assert!(log.contains(text), "{log}");
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_child_takes_sockets_and_statistics_and_ends_its_parent() {
    let line = Line::new();
    let mut parent = line.start(0, &[]);
    line.serves(0);
    for _ in 0..5 {
        assert!(line.request());
    }
    assert_eq!(line.stat("server.hot_restart_generation"), Some(1));
    let mut open = TcpStream::connect(("127.0.0.1", line.port)).unwrap();
    eventually("it is accepted", || {
        line.stat("http.front.downstream_cx_active") == Some(1)
    });

    let _child = line.start(1, &[]);
    line.serves(1);
    assert_eq!(line.stat("server.hot_restart_generation"), Some(2));
    assert!(line.request());
    eventually("the parent's statistics", || {
        line.stat("http.front.downstream_rq_2xx") == Some(6)
            && line.stat("server.parent_connections") == Some(1)
            && line.stat("server.total_connections") == Some(1)
            && line.stat("http.front.downstream_cx_active") == Some(1)
    });
    // The connection is the parent's, and answered by it.
    assert!(parent.child.try_wait().unwrap().is_none());
    write!(open, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    open.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");

    assert_eq!(parent.ended().code(), Some(0));
    // What it counted stays, what it had open does not.
    eventually("the parent is forgotten", || {
        line.stat("server.parent_connections") == Some(0) && line.stat("http.front.downstream_cx_active") == Some(0)
    });
    assert_eq!(line.stat("http.front.downstream_rq_2xx"), Some(7));
    assert!(line.request());
}

#[test]
fn a_child_that_dies_before_it_serves_changes_nothing() {
    let line = Line::new();
    let mut parent = line.start(0, &[]);
    line.serves(0);
    // It waits for a control plane that nobody is.
    let stuck = format!(
        r#"
node: {{id: node-1, cluster: c}}
dynamic_resources: {{lds_config: {{initial_fetch_timeout: 0s, resource_api_version: V3, api_config_source: {{api_type: GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}}}}}
{}
  clusters: [{{name: xds, connect_timeout: 1s, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}, load_assignment: {{cluster_name: xds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}]
"#,
        line.bootstrap(""),
        free_port()
    );
    let mut child = line.start_with(1, &stuck, &[]);
    eventually("the child answers for the admin", || {
        line.stat("server.hot_restart_epoch") == Some(1)
    });
    // There is room for one child.
    line.start_with(1, &stuck, &[])
        .fails_with("unable to bind domain socket with base_id=70, id=1, errno=98");
    child.kill();
    eventually("the parent answers for the admin again", || {
        line.stat("server.hot_restart_epoch") == Some(0)
    });
    for _ in 0..20 {
        assert!(line.request());
    }
    let _next = line.start(1, &[]);
    line.serves(1);
    assert_eq!(parent.ended().code(), Some(0));
}

#[test]
fn a_parent_that_is_killed_while_it_drains_takes_nothing_with_it() {
    let line = Line::new();
    let mut parent = line.start(0, &[]);
    line.serves(0);
    let _open = TcpStream::connect(("127.0.0.1", line.port)).unwrap();
    let mut child = line.start_with(1, &line.bootstrap(""), &["--parent-shutdown-time-s", "100"]);
    line.serves(1);
    eventually("the parent's statistics", || {
        line.stat("server.parent_connections") == Some(1)
    });
    parent.kill();
    eventually("the parent is forgotten", || {
        line.stat("server.parent_connections") == Some(0)
    });
    for _ in 0..20 {
        assert!(line.request());
    }
    let _next = line.start(2, &[]);
    line.serves(2);
    assert_eq!(child.ended().code(), Some(0));
}

#[test]
fn a_process_without_a_place_in_the_line_ends_with_a_word() {
    let line = Line::new();
    line.start(1, &[]).fails_with("no parent of epoch 0 answers at");
    line.start(1, &["--use-dynamic-base-id"])
        .fails_with("cannot use --restart-epoch=1 with --use-dynamic-base-id");
    let mut first = line.start(0, &[]);
    line.serves(0);
    line.start(0, &[])
        .fails_with("unable to bind domain socket with base_id=70, id=0, errno=98 (see --base-id option)");
    line.start(2, &[]).fails_with("no parent of epoch 1 answers at");
    assert!(line.request());
    first.kill();
    // A socket's file that nobody listens at is no obstacle.
    let _again = line.start(0, &[]);
    line.serves(0);
}

#[test]
fn a_parent_of_another_version_or_that_hangs_is_not_followed() {
    let line = Line::new();
    let parent = UnixListener::bind(line.socket(0)).unwrap();
    let mut child = line.start(1, &[]);
    let (mut stream, _) = parent.accept().unwrap();
    let why = b"hot restart version mismatch: the parent has 9";
    let mut frame = b"nhr1".to_vec();
    frame.extend((why.len() as u32 + 2).to_le_bytes());
    frame.extend([0x0a, why.len() as u8]);
    frame.extend(why);
    stream.write_all(&frame).unwrap();
    child.fails_with("the parent refuses: hot restart version mismatch: the parent has 9");

    // Nobody accepts: the kernel does, and then nothing comes.
    line.start(1, &[]).fails_with("no parent of epoch 0 answers at");
    let _alone = line.start(1, &["--skip-hot-restart-on-no-parent"]);
    line.serves(1);
    assert!(line.request());
}
