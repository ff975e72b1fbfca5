//! The rows of the table: what is measured, in order.

/// One row.
pub struct Row {
    /// How `--rows` names it.
    pub name: &'static str,
    /// How the table names it.
    pub title: &'static str,
    /// Whether the proxies write a file access log meanwhile.
    pub log: bool,
    pub work: Work,
}

/// What is done in a row.
#[derive(Clone, Copy)]
pub enum Work {
    /// HTTP/1.1 by wrk on keep-alive connections.
    Http1 {
        tls: bool,
        connections: usize,
        path: &'static str,
    },
    /// HTTP/1.1 at 70 % of what Envoy reached in the row `h1`, by h2load.
    Http1Paced { connections: usize },
    /// The same while the route table changes: Envoy and nuncio only.
    Churn { connections: usize, per_second: u32 },
    /// HTTP/2 by h2load; the upstream side is HTTP/1.1.
    Http2 {
        tls: bool,
        connections: usize,
        streams: usize,
    },
    /// A TLS 1.3 handshake for every request.
    Handshake { resume: bool, connections: usize },
    /// Messages of `size` bytes there and back through the TCP proxy.
    Tcp { connections: usize, size: usize },
    /// A new cleartext connection for every request. With `chains`, the listener has that many filter chains, told apart
    /// by the destination address, and connections go to all of them: Envoy and nuncio only.
    Connect { connections: usize, chains: usize },
    /// HTTP/1.1 with a token through `tunnels` CONNECT streams in each of `connections` HTTP/2 connections with mutual
    /// TLS, as a waypoint gets it: Envoy and nuncio only.
    Waypoint { connections: usize, tunnels: usize },
    /// Memory of a process that has just become ready.
    MemoryAtStart,
    /// Memory that each idle connection adds.
    MemoryPerConnection { kind: Idle, connections: usize },
    /// Many clusters and virtual hosts: Envoy and nuncio only.
    Clusters { count: usize },
}

/// What is idle in [`Work::MemoryPerConnection`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// A keep-alive connection after one HTTP/1.1 request.
    Http,
    /// The same over TLS.
    Tls,
    /// A connection through the TCP proxy after one message, with an upstream connection of its own.
    Tcp,
}

const fn row(name: &'static str, title: &'static str, log: bool, work: Work) -> Row {
    Row { name, title, log, work }
}

const H1: Work = Work::Http1 {
    tls: false,
    connections: 64,
    path: "/",
};
const H1_TLS: Work = Work::Http1 {
    tls: true,
    connections: 64,
    path: "/",
};
const H2: Work = Work::Http2 {
    tls: false,
    connections: 8,
    streams: 16,
};
const H2_TLS: Work = Work::Http2 {
    tls: true,
    connections: 8,
    streams: 16,
};
const TCP: Work = Work::Tcp {
    connections: 64,
    size: 64,
};
const CONNECT: Work = Work::Connect {
    connections: 8,
    chains: 1,
};

/// As many as a process that may open 20,000 files can have, beside its own.
pub const MANY_IDLE: usize = 19_000;

/// All rows; `h1` stands first because `h1-paced` needs its rate.
pub const ROWS: &[Row] = &[
    row("h1", "HTTP/1.1 keep-alive, 64 connections", false, H1),
    row("h1-tls", "HTTP/1.1 over TLS 1.3, 64 connections", false, H1_TLS),
    row("h2", "HTTP/2 cleartext, 8 connections x 16 streams", false, H2),
    row("h2-tls", "HTTP/2 over TLS 1.3, 8 x 16", false, H2_TLS),
    row(
        "handshake",
        "Full TLS 1.3 handshake per request (ECDSA P-256)",
        false,
        Work::Handshake {
            resume: false,
            connections: 8,
        },
    ),
    row(
        "resume",
        "Resumed TLS 1.3 handshake per request",
        false,
        Work::Handshake {
            resume: true,
            connections: 8,
        },
    ),
    row("connect", "A new connection per request", false, CONNECT),
    row(
        "connect-5k-chains",
        "The same with 5,000 filter chains",
        false,
        Work::Connect {
            connections: 8,
            chains: 5000,
        },
    ),
    row("tcp", "TCP proxy, 64-byte messages", false, TCP),
    row(
        "tcp-1m",
        "TCP proxy, 1 MiB messages",
        false,
        Work::Tcp {
            connections: 8,
            size: 1 << 20,
        },
    ),
    row(
        "body-1m",
        "1 MiB response bodies",
        false,
        Work::Http1 {
            tls: false,
            connections: 16,
            path: "/1m",
        },
    ),
    row(
        "h1-paced",
        "HTTP/1.1 at 70 % of Envoy's best rate",
        false,
        Work::Http1Paced { connections: 64 },
    ),
    row(
        "h1-churn",
        "The same with 100 route updates per second",
        false,
        Work::Churn {
            connections: 64,
            per_second: 100,
        },
    ),
    row(
        "waypoint",
        "One HBONE hop with RBAC and JWT, 8 connections x 8 tunnels",
        false,
        Work::Waypoint {
            connections: 8,
            tunnels: 8,
        },
    ),
    row("h1-log", "HTTP/1.1 with a file access log", true, H1),
    row("h1-tls-log", "HTTP/1.1 over TLS with a file access log", true, H1_TLS),
    row("h2-log", "HTTP/2 cleartext with a file access log", true, H2),
    row("h2-tls-log", "HTTP/2 over TLS with a file access log", true, H2_TLS),
    row("memory-start", "Memory at start", false, Work::MemoryAtStart),
    row(
        "memory-idle",
        "Memory per idle keep-alive connection",
        false,
        Work::MemoryPerConnection {
            kind: Idle::Http,
            connections: 2000,
        },
    ),
    row(
        "memory-idle-tls",
        "Memory per idle TLS connection",
        false,
        Work::MemoryPerConnection {
            kind: Idle::Tls,
            connections: 1000,
        },
    ),
    row(
        "memory-idle-tcp",
        "Memory per idle connection of the TCP proxy",
        false,
        Work::MemoryPerConnection {
            kind: Idle::Tcp,
            // Below the 1,024 connections that a cluster allows by default.
            connections: 900,
        },
    ),
    row(
        "memory-idle-19k",
        "Memory per idle keep-alive connection of 19,000",
        false,
        Work::MemoryPerConnection {
            kind: Idle::Http,
            connections: MANY_IDLE,
        },
    ),
    row(
        "clusters-10k",
        "10,000 clusters and virtual hosts",
        false,
        Work::Clusters { count: 10_000 },
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
