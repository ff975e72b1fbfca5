//! Network filters, one folder each. The connection manager has a room of its own, `http::hcm`.

pub mod tcp_proxy;
