//! What a cluster says of the requests to it, instead of their routes (`HttpProtocolOptions`).

use std::sync::Arc;

use xds_protos::envoy::config::route::v3::{
    RetryPolicy as RetryProto,
    route_action::{HashPolicy as HashProto, RequestMirrorPolicy as MirrorProto},
};

use crate::{
    config::{BuildCx, ConfigResult},
    route::{HashPolicies, MirrorPolicy, RetryPolicy},
};

/// A cluster's own policies; each replaces the route's as a whole.
#[derive(Debug, Clone, Default)]
pub struct RequestPolicies {
    /// `retry_policy`
    pub retry: Option<Arc<RetryPolicy>>,
    /// `hash_policy`
    pub hash: Option<Arc<HashPolicies>>,
    /// `request_mirror_policies`; empty: the route's.
    pub mirrors: Arc<[MirrorPolicy]>,
}

impl PartialEq for RequestPolicies {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: Option<*const RetryPolicy>, b| a == b;
        same(
            self.retry.as_ref().map(Arc::as_ptr),
            other.retry.as_ref().map(Arc::as_ptr),
        ) && self.hash.as_ref().map(Arc::as_ptr) == other.hash.as_ref().map(Arc::as_ptr)
            && (Arc::ptr_eq(&self.mirrors, &other.mirrors) || self.mirrors.is_empty() && other.mirrors.is_empty())
    }
}

impl RequestPolicies {
    pub(super) fn build(
        retry: Option<RetryProto>,
        hash: Vec<HashProto>,
        mirrors: Vec<MirrorProto>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        Ok(Self {
            retry: cx.opt("retry_policy", retry, RetryPolicy::build)?.map(Arc::new),
            hash: match hash.is_empty() {
                true => None,
                false => Some(Arc::new(HashPolicies::build(hash, cx)?)),
            },
            mirrors: cx.each("request_mirror_policies", mirrors, MirrorPolicy::build)?.into(),
        })
    }
}
