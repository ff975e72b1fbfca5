//! The error of every configuration: where, and what is wrong.

use std::fmt;

/// Shorthand for what every conversion returns.
pub type ConfigResult<T> = Result<T, ConfigError>;

/// A rejected configuration: the path of the field, as it is written in YAML, and the reason.
///
/// Shown as `path: reason`; xDS puts the text into the NACK's `error_detail`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    path: String,
    reason: String,
}

impl ConfigError {
    /// An error at `path` (dotted, indices in brackets; empty for the resource as a whole).
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// The dotted path of the field, for example `filter_chains[0].filters[1].typed_config`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong and, where it is known, how to mend it; in Envoy's words where Envoy has some.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}
