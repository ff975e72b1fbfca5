//! `RequestMirrorPolicy`: copies of requests whose answers are thrown away.

use std::sync::Arc;

use crate::{config::FractionalPercent, matching::HeaderLookup};

use super::HeaderMutations;

/// One mirror.
#[derive(Debug, Clone)]
pub struct MirrorPolicy {
    /// The cluster by name; empty when `cluster_header` names it.
    pub cluster: Arc<str>,
    /// The request header that names the cluster; an absent one means no mirror.
    pub cluster_header: Option<HeaderLookup>,
    /// Share of requests; default all.
    pub fraction: FractionalPercent,
    /// Runtime key that overrides the share; empty for none.
    pub runtime_key: String,
    /// Whether the copy's span is sampled; none: as the request's.
    pub trace_sampled: Option<bool>,
    /// Leaves the host without the `-shadow` suffix.
    pub disable_host_suffix: bool,
    /// Mutations of the copy's headers.
    pub mutations: HeaderMutations,
    /// `host_rewrite_literal` of the copy.
    pub host_rewrite: Option<http::HeaderValue>,
}
