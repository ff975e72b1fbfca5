//! Audiences: compared without scheme and last slash, as gRPC's clients and servers write them differently.

use std::collections::HashSet;

/// The audiences a token may be for; any when there are none.
#[derive(Debug, Default)]
pub(super) struct Audiences(HashSet<String>);

impl Audiences {
    pub fn new(all: Vec<String>) -> Self {
        Self(all.iter().map(|a| bare(a).to_owned()).collect())
    }

    /// Whether one of a token's audiences is among them.
    pub fn allow(&self, of_token: &[String]) -> bool {
        self.0.is_empty() || of_token.iter().any(|a| self.0.contains(bare(a)))
    }
}

fn bare(audience: &str) -> &str {
    let rest = audience
        .strip_prefix("https://")
        .or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}
