//! Istio's standard metrics and labels: names, kinds and order.

use crate::stats::Unit;

/// A standard metric. Those of one [`Shape`] stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Metric {
    /// Requests.
    RequestsTotal,
    /// How long requests took.
    RequestDuration,
    /// Bytes of requests as the codec counts them.
    RequestBytes,
    /// Bytes of responses.
    ResponseBytes,
    /// gRPC messages of requests.
    RequestMessages,
    /// gRPC messages of responses.
    ResponseMessages,
    /// Connections opened.
    TcpOpened,
    /// Connections closed.
    TcpClosed,
    /// Bytes sent to clients.
    TcpSent,
    /// Bytes received from clients.
    TcpReceived,
}

impl Metric {
    /// Every metric with its name in configuration.
    pub(super) const ALL: [(Self, &'static str); 10] = [
        (Self::RequestsTotal, "requests_total"),
        (Self::RequestDuration, "request_duration_milliseconds"),
        (Self::RequestBytes, "request_bytes"),
        (Self::ResponseBytes, "response_bytes"),
        (Self::RequestMessages, "request_messages_total"),
        (Self::ResponseMessages, "response_messages_total"),
        (Self::TcpOpened, "tcp_connections_opened_total"),
        (Self::TcpClosed, "tcp_connections_closed_total"),
        (Self::TcpSent, "tcp_sent_bytes_total"),
        (Self::TcpReceived, "tcp_received_bytes_total"),
    ];

    /// The metric of a name in configuration.
    pub(super) fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(metric, _)| *metric)
    }

    /// Its name in configuration.
    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Its unit; none for a counter.
    pub(super) fn unit(self) -> Option<Unit> {
        match self {
            Self::RequestDuration => Some(Unit::Milliseconds),
            Self::RequestBytes | Self::ResponseBytes => Some(Unit::Bytes),
            _ => None,
        }
    }
}

/// Which metrics have the same labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Shape {
    /// Of a request that is over.
    Http,
    /// Of the messages of a call: they are told before the request has a protocol or an answer.
    Messages,
    /// Of a connection.
    Tcp,
}

/// Labels of both ends, the first of every shape.
pub(super) const PEERS: usize = 20;

const HTTP: [&str; PEERS + 5] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

const TCP: [&str; PEERS + 3] = {
    let mut names = [""; PEERS + 3];
    let mut at = 0;
    while at <= PEERS {
        names[at] = HTTP[at];
        at += 1;
    }
    names[PEERS + 1] = HTTP[PEERS + 3];
    names[PEERS + 2] = HTTP[PEERS + 4];
    names
};

impl Shape {
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Http,
            1 => Self::Messages,
            _ => Self::Tcp,
        }
    }

    /// Names of the labels, in order.
    pub(super) fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Http => &HTTP,
            Self::Messages => &HTTP[..PEERS],
            Self::Tcp => &TCP,
        }
    }

    /// The first metric of this shape.
    pub(super) fn first(self) -> Metric {
        match self {
            Self::Http => Metric::RequestsTotal,
            Self::Messages => Metric::RequestMessages,
            Self::Tcp => Metric::TcpOpened,
        }
    }
}

/// The standard label of that name, in the static form.
pub(super) fn standard_label(name: &str) -> Option<&'static str> {
    HTTP.into_iter().find(|known| *known == name)
}
