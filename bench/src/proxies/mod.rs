//! The proxies under test: how each is found, configured and started for the same work.

mod bootstrap;
mod find;
mod haproxy;
mod nginx;
mod waypoint;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::certs::Certs;
use crate::process::{self, Process};
use crate::{http, machine};

pub use bootstrap::{many_clusters, with_routes_from};
pub use find::find;
pub use nginx::has_stream as nginx_has_stream;
pub use waypoint::{Identity, bootstrap as waypoint_bootstrap};

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nuncio,
    Envoy,
    Nginx,
    Haproxy,
}

impl Kind {
    /// In the order of the columns.
    pub const ALL: [Kind; 4] = [Kind::Nuncio, Kind::Envoy, Kind::Nginx, Kind::Haproxy];

    /// As `--proxies` and the table name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nuncio => "nuncio",
            Kind::Envoy => "Envoy",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "HAProxy",
        }
    }

    /// Whether it reads Envoy's bootstrap.
    pub fn reads_bootstrap(self) -> bool {
        matches!(self, Kind::Nuncio | Kind::Envoy)
    }
}

/// A proxy that is present on this machine.
pub struct Proxy {
    pub kind: Kind,
    pub program: PathBuf,
    pub version: String,
}

/// What a proxy must know to serve: the ports behind it and the files it reads and writes.
pub struct Setup<'a> {
    pub core: usize,
    pub http_backend: u16,
    pub echo_backend: u16,
    pub certs: &'a Certs,
    /// Whether the TLS and the TCP listener are wanted.
    pub tls: bool,
    pub tcp: bool,
    /// How many filter chains the HTTP listener has.
    pub chains: usize,
    /// Whether to write a file access log.
    pub log: bool,
    /// A directory for configurations and logs.
    pub scratch: &'a Path,
}

/// The ports a proxy listens on. nginx 1.22 needs one of its own for cleartext HTTP/2.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub http1: u16,
    pub http2: u16,
    pub tls: u16,
    pub tcp: u16,
    pub admin: u16,
}

/// A proxy that serves.
pub struct Running {
    pub process: Process,
    pub ports: Ports,
}

impl Proxy {
    /// Starts the proxy and waits until it answers a request.
    pub fn start(&self, setup: &Setup) -> Result<Running> {
        let ports = Ports::free(self.kind)?;
        let stem = format!("{}{}", self.kind.name(), if setup.log { "-log" } else { "" });
        let command = match self.kind {
            Kind::Nuncio | Kind::Envoy => {
                let config = setup.scratch.join(format!("{stem}.yaml"));
                std::fs::write(&config, bootstrap::bootstrap(setup, ports, &stem))?;
                self.envoy_command(setup.core, &config)
            }
            Kind::Nginx => {
                let config = setup.scratch.join(format!("{stem}.conf"));
                std::fs::write(&config, nginx::config(setup, ports, &stem))?;
                let mut command = process::pinned(setup.core, &self.program);
                command.arg("-c").arg(&config).arg("-p").arg(setup.scratch);
                command
            }
            Kind::Haproxy => {
                let config = setup.scratch.join(format!("{stem}.cfg"));
                std::fs::write(&config, haproxy::config(setup, ports))?;
                let mut command = process::pinned(setup.core, &self.program);
                command.arg("-db").arg("-f").arg(&config);
                command
            }
        };
        let log = setup.scratch.join(format!("{stem}.out"));
        let mut process = Process::start(self.kind.name(), command, &log)?;
        let ready = || http::get(ports.http1, "bench.example", "/").is_ok();
        process::wait_until(&mut process, Duration::from_secs(20), ready).map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said: String = said.chars().take(2000).collect();
            error.context(said)
        })?;
        Ok(Running { process, ports })
    }

    /// nuncio and Envoy take the same flags.
    pub fn envoy_command(&self, core: usize, config: &Path) -> Command {
        let mut command = process::pinned(core, &self.program);
        command.arg("-c").arg(config);
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
        command
    }
}

impl Ports {
    /// Ports that were free a moment ago.
    pub fn free(kind: Kind) -> Result<Ports> {
        let held: Vec<TcpListener> = (0..5)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<std::io::Result<_>>()?;
        let mut ports = Vec::new();
        for listener in &held {
            ports.push(listener.local_addr()?.port());
        }
        let [http1, http2, tls, tcp, admin] = ports[..] else {
            anyhow::bail!("five ports")
        };
        let http2 = if kind.reads_bootstrap() { http1 } else { http2 };
        Ok(Ports {
            http1,
            http2,
            tls,
            tcp,
            admin,
        })
    }
}

/// The version in the words of the program itself.
fn version(kind: Kind, program: &Path) -> String {
    let program = program.to_string_lossy();
    match kind {
        Kind::Nginx => machine::first_line(&program, &["-v"]).replace("nginx version: nginx/", ""),
        Kind::Haproxy => word(&machine::first_line(&program, &["-v"]), 2),
        // <program>  version: <commit>/<version>/<state>/<build>/<ssl>
        Kind::Nuncio | Kind::Envoy => {
            let output = Command::new(program.as_ref()).arg("--version").output();
            let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
            let text = text.unwrap_or_default();
            text.split('/')
                .find(|part| part.starts_with(|c: char| c.is_ascii_digit()) && part.contains('.'))
                .map_or_else(|| word(text.trim(), 1), str::to_string)
        }
    }
}

fn word(line: &str, n: usize) -> String {
    line.split_whitespace().nth(n).unwrap_or_default().to_string()
}
