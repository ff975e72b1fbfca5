//! `LoadBalancingPolicy`: a list of policies, of which the first that is known here counts.

use xds_protos::{envoy::config::cluster::v3::LoadBalancingPolicy, google::protobuf::Any};

use super::{LbConfig, cluster_provided, least_request, maglev, random, ring_hash, round_robin, subset, wrr_locality};
use crate::config::{AnyExt, BuildCx, ConfigResult, plain, unpack};

type Reader = fn(&Any, &mut BuildCx<'_>) -> ConfigResult<LbConfig>;

/// The policies by the types of their messages, below `envoy.extensions.load_balancing_policies`.
const POLICIES: &[(&str, Reader)] = &[
    ("cluster_provided.v3.ClusterProvided", |any, cx| {
        cluster_provided::build(unpack(any, cx)?, cx)
    }),
    ("least_request.v3.LeastRequest", |any, cx| {
        least_request::build(unpack(any, cx)?, cx)
    }),
    ("maglev.v3.Maglev", |any, cx| maglev::build(unpack(any, cx)?, cx)),
    ("random.v3.Random", |any, cx| random::build(unpack(any, cx)?, cx)),
    ("ring_hash.v3.RingHash", |any, cx| {
        ring_hash::build(unpack(any, cx)?, cx)
    }),
    ("round_robin.v3.RoundRobin", |any, cx| {
        round_robin::build(unpack(any, cx)?, cx)
    }),
    ("subset.v3.Subset", |any, cx| subset::build(unpack(any, cx)?, cx)),
    ("wrr_locality.v3.WrrLocality", |any, cx| {
        wrr_locality::build(unpack(any, cx)?, cx)
    }),
];

/// Reads the first policy that is known; those before it are passed over, whatever they say.
pub fn build(list: LoadBalancingPolicy, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let LoadBalancingPolicy { policies } = list;
    let mut unknown = Vec::new();
    for (i, policy) in policies.into_iter().enumerate() {
        let extension = policy.typed_extension_config.unwrap_or_default();
        let any = plain(extension.typed_config.unwrap_or_default(), cx)?;
        let name = any
            .type_name()
            .strip_prefix("envoy.extensions.load_balancing_policies.");
        match POLICIES.iter().find(|(known, _)| name == Some(known)) {
            Some((_, read)) => return cx.item("policies", i, |cx| read(&any, cx)),
            None => unknown.push(extension.name),
        }
    }
    Err(cx.error(format!(
        "cluster: didn't find a registered load balancer factory for cluster, tried: [{}]",
        unknown.join(", ")
    )))
}
