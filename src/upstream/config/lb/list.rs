//! `LoadBalancingPolicy`: a list of policies, of which the first that is known here counts.

use xds_protos::{
    any::{AnyError, resolve},
    envoy::config::cluster::v3::LoadBalancingPolicy,
    google::protobuf::Any,
};

use super::{
    LbConfig, client_side_wrr, cluster_provided, least_request, maglev, override_host, random, ring_hash, round_robin,
    subset, wrr_locality,
};
use crate::config::{AnyExt, BuildCx, ConfigResult, plain, unpack};

type Reader = fn(&Any, &mut BuildCx<'_>) -> ConfigResult<LbConfig>;

/// The policies by the types of their messages, below `envoy.extensions.load_balancing_policies`.
const POLICIES: &[(&str, Reader)] = &[
    (
        "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        |any, cx| client_side_wrr::build(unpack(any, cx)?, cx),
    ),
    ("cluster_provided.v3.ClusterProvided", |any, cx| {
        cluster_provided::build(unpack(any, cx)?, cx)
    }),
    ("least_request.v3.LeastRequest", |any, cx| {
        least_request::build(unpack(any, cx)?, cx)
    }),
    ("maglev.v3.Maglev", |any, cx| maglev::build(unpack(any, cx)?, cx)),
    ("override_host.v3.OverrideHost", |any, cx| {
        override_host::build(unpack(any, cx)?, cx)
    }),
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

/// Reads a cluster's first policy that is known; those before it are passed over, whatever they say.
pub fn build(list: LoadBalancingPolicy, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let (found, unknown) = first_known(list, cx)?;
    found.ok_or_else(|| {
        cx.error(format!(
            "cluster: didn't find a registered load balancer factory for cluster, tried: [{}]",
            unknown.join(", ")
        ))
    })
}

/// The same of the policy within `wrr_locality`.
pub fn build_endpoint_picking(list: LoadBalancingPolicy, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let (found, _) = first_known(list, cx)?;
    found.ok_or_else(|| cx.error("No supported endpoint picking policy."))
}

/// The same of the policy that `override_host` falls back to.
pub fn build_fallback(list: LoadBalancingPolicy, cx: &mut BuildCx<'_>) -> ConfigResult<LbConfig> {
    let (found, unknown) = first_known(list, cx)?;
    found.ok_or_else(|| {
        cx.error(format!(
            "dynamic forwarding LB: didn't find a registered fallback load balancer factory with names from {}",
            unknown.join(", ")
        ))
    })
}

/// The first known policy, and the names of those before it.
fn first_known(list: LoadBalancingPolicy, cx: &mut BuildCx<'_>) -> ConfigResult<(Option<LbConfig>, Vec<String>)> {
    let LoadBalancingPolicy { policies } = list;
    let mut unknown = Vec::new();
    for (i, policy) in policies.into_iter().enumerate() {
        let extension = policy.typed_extension_config.unwrap_or_default();
        let any = extension.typed_config.unwrap_or_default();
        if let Err(AnyError::UnknownType(_)) = resolve(&any) {
            unknown.push(extension.name);
            continue;
        }
        let any = plain(any, cx)?;
        let name = any
            .type_name()
            .strip_prefix("envoy.extensions.load_balancing_policies.");
        match POLICIES.iter().find(|(known, _)| name == Some(known)) {
            Some((_, read)) => return Ok((Some(cx.item("policies", i, |cx| read(&any, cx))?), unknown)),
            None => unknown.push(extension.name),
        }
    }
    Ok((None, unknown))
}
