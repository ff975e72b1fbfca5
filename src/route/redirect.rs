//! `RedirectAction`: an answer that sends the client elsewhere.

use http::StatusCode;

/// Redirects the client.
#[derive(Debug, Clone)]
pub struct RedirectAction {
    /// Status; default 301.
    pub status: StatusCode,
}
