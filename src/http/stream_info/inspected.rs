//! What is known of a client before a filter chain is chosen.

use std::sync::Arc;

/// What listener filters found out about a client, for the choice of a filter chain.
#[derive(Debug, Default, Clone)]
pub struct Inspected {
    /// Whether a ClientHello was seen.
    pub tls: bool,
    /// SNI, lower-case.
    pub server_name: Option<Arc<str>>,
    /// Protocols: ALPN of a ClientHello, or `http/1.1`, `http/1.0`, `h2c` of plain text.
    pub protocols: Vec<String>,
}

impl Inspected {
    /// `tls` or `raw_buffer`
    pub fn transport_protocol(&self) -> &'static str {
        if self.tls { "tls" } else { "raw_buffer" }
    }
}
