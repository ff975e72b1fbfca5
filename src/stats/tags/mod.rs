//! Tags: parts of a statistic's name that Prometheus sees as labels.

/// A tag of a statistic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Envoy's name of the tag, e.g. `envoy.cluster_name`.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

impl Tag {
    /// A tag of that name and value.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}
