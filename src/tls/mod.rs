//! TLS both ways: server and client contexts, secrets, peer validation.
//!
//! ```text
//! DownstreamTlsContext, UpstreamTlsContext -> Common: parameters, and where certificates and CAs come from
//! secrets (static, SDS, files) + Common -> a state of rustls configurations, swapped when a secret changes
//! accept / connect: one handshake with the state of that moment -> Stream, TlsInfo or HandshakeError
//! ```
//!
//! What rustls cannot do (TLS 1.0 and 1.1, renegotiation, suites without forward secrecy) is refused when it is
//! configured, unless leaving it out of a list only makes the context stricter.

mod admin;
mod cert_info;
mod certificate;
mod client;
mod common;
mod failure;
mod info;
mod key_log;
mod names;
mod params;
mod peer_san;
mod private_key;
mod secrets;
mod selection;
mod server;
mod stats;
mod tickets;
mod validation;

pub use admin::{certificates, redact, secrets_config_dump};
pub use client::{ClientOptions, ClientTls};
pub use failure::HandshakeError;
pub use peer_san::PeerSanMatcher;
pub use secrets::{
    AppliedSecret, Candidate, CertificateSecret, SecretKind, SecretSlot, SecretUser, SecretValue, Secrets,
};
pub use server::ServerTls;

#[cfg(test)]
mod tests;
