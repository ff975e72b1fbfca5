//! `RequestMirrorPolicy`: copies of requests whose answers are thrown away.

use std::sync::Arc;

use http::HeaderValue;
use xds_protos::envoy::config::route::v3::route_action::RequestMirrorPolicy as Proto;

use super::{HeaderMutations, cluster::host_value};
use crate::{
    config::{BuildCx, ConfigResult, FractionalPercent},
    matching::HeaderLookup,
    runtime::RuntimeFractionalPercent,
};

/// One mirror.
#[derive(Debug, Clone)]
pub struct MirrorPolicy {
    /// The cluster by name; empty when `cluster_header` names it.
    pub cluster: Arc<str>,
    /// The request header that names the cluster; an absent one means no mirror.
    pub cluster_header: Option<HeaderLookup>,
    /// Share of requests; default all.
    pub fraction: RuntimeFractionalPercent,
    /// Whether the copy's span is sampled; none: as the request's.
    pub trace_sampled: Option<bool>,
    /// Leaves the host without the `-shadow` suffix.
    pub disable_host_suffix: bool,
    /// Mutations of the copy's headers.
    pub mutations: HeaderMutations,
    /// `host_rewrite_literal` of the copy.
    pub host_rewrite: Option<HeaderValue>,
}

impl MirrorPolicy {
    /// Builds one mirror.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                cluster, cluster_header, runtime_fraction, trace_sampled, disable_shadow_host_suffix_append,
                request_headers_mutations, host_rewrite_literal,
            }
        });
        match (cluster.is_empty(), cluster_header.is_empty()) {
            (false, false) => {
                return Err(cx.error(format!(
                    "Only one of cluster '{cluster}' or cluster_header '{cluster_header}' in request mirror policy can be specified"
                )));
            }
            (true, true) => {
                return Err(
                    cx.error("Exactly one of cluster or cluster_header in request mirror policy need to be specified")
                );
            }
            _ => {}
        }
        let fraction = RuntimeFractionalPercent::build_or(runtime_fraction, FractionalPercent::FULL, cx)?;
        Ok(Self {
            cluster: cluster.into(),
            cluster_header: match cluster_header.as_str() {
                "" => None,
                name => Some(HeaderLookup::of(name)),
            },
            fraction,
            trace_sampled: trace_sampled.map(|b| b.value),
            disable_host_suffix: disable_shadow_host_suffix_append || !host_rewrite_literal.is_empty(),
            mutations: HeaderMutations::build_list("request_headers_mutations", request_headers_mutations, cx)?,
            host_rewrite: match host_rewrite_literal.as_str() {
                "" => None,
                host => Some(host_value(host, "host_rewrite_literal", cx)?),
            },
        })
    }
}
