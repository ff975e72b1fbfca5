//! Where a cluster's endpoints come from: one file for each cluster type, and the table they are found in.

mod aggregate;
mod dns;
mod dynamic_forward_proxy;
mod eds;
mod original_dst;

use std::{sync::Arc, time::Duration};

use xds_protos::{
    envoy::config::{
        cluster::v3::{
            Cluster as ProtoCluster,
            cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, EdsClusterConfig, OriginalDstLbConfig},
        },
        endpoint::v3::ClusterLoadAssignment,
    },
    google::protobuf::Any,
};

use super::{Assignment, endpoints::from_assignment};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult},
    upstream::{OriginalDst, Provided, dynamic_forward_proxy::DynamicForwardProxy},
};

pub use dns::{DnsFields, DnsOptions, DnsTarget, failure_rates};
pub use dynamic_forward_proxy::is_configured as is_dynamic_forward_proxy;
pub use eds::EdsOptions;

/// Where the endpoints come from.
#[derive(Debug)]
pub enum Discovery {
    /// They are in the cluster.
    Static(Assignment),
    /// From a control plane.
    Eds(EdsOptions),
    /// All addresses of names.
    StrictDns(DnsOptions, Vec<DnsTarget>, Assignment),
    /// One host, connecting to the present addresses of a name.
    LogicalDns(DnsOptions, Vec<DnsTarget>, Assignment),
    /// Wherever the client's connection wanted to go.
    OriginalDst(Arc<OriginalDst>),
    /// Other clusters, by their health and in this order.
    Aggregate(Arc<[Arc<str>]>),
    /// Wherever requests name.
    DynamicForwardProxy(DynamicForwardProxy),
}

impl Discovery {
    /// The type's name, of clusters whose hosts cannot be hashed by their names.
    pub fn without_hostnames(&self) -> Option<&'static str> {
        match self {
            Self::StrictDns(..) => None,
            Self::Static(_) => Some("static"),
            Self::Eds(_) => Some("eds"),
            Self::LogicalDns(..) => Some("logical_dns"),
            Self::OriginalDst(_) => Some("original_dst"),
            Self::Aggregate(_) => Some("aggregate"),
            Self::DynamicForwardProxy(_) => Some("dynamic_forward_proxy"),
        }
    }

    /// The load balancer that the type brings along, which `CLUSTER_PROVIDED` asks for.
    pub fn provided(&self) -> Option<Provided> {
        match self {
            Self::Static(_) | Self::Eds(_) | Self::StrictDns(..) | Self::LogicalDns(..) => None,
            Self::OriginalDst(shared) => Some(Provided::OriginalDst(shared.clone())),
            Self::Aggregate(names) => Some(Provided::Aggregate(names.clone())),
            Self::DynamicForwardProxy(by_name) => Some(Provided::DynamicForwardProxy(by_name.clone())),
        }
    }
}

/// What cluster types read of their cluster.
pub struct Parts<'a> {
    /// `name`
    pub cluster: &'a str,
    /// `eds_cluster_config`
    pub eds: Option<EdsClusterConfig>,
    /// `load_assignment`
    pub assignment: Option<ClusterLoadAssignment>,
    /// The cluster's fields on DNS.
    pub dns: DnsFields,
    /// `original_dst_lb_config`
    pub original_dst: Option<OriginalDstLbConfig>,
    /// `cleanup_interval`
    pub cleanup_interval: Duration,
    /// Whether the policy is `CLUSTER_PROVIDED`.
    pub lb_provided: bool,
    /// Whether connections ask for the name of their host and check it (`auto_sni` and `auto_san_validation`).
    pub names_checked: bool,
    /// The whole cluster, for a dynamic forward proxy: its sub-clusters are made after it.
    pub template: Option<Box<ProtoCluster>>,
    /// `cluster_type.typed_config`
    pub typed_config: Any,
}

type Build = fn(Parts<'_>, &mut BuildCx<'_>) -> ConfigResult<Discovery>;

/// A cluster type: its name, the message that configures it (none for those that the cluster's own fields do).
struct ClusterType(&'static str, &'static str, Build);

#[rustfmt::skip]
const TYPES: &[ClusterType] = &[
    ClusterType("envoy.cluster.static", "", fixed),
    ClusterType("envoy.cluster.eds", "", eds::build),
    ClusterType("envoy.cluster.strict_dns", "", dns::strict),
    ClusterType("envoy.cluster.logical_dns", "", dns::logical),
    ClusterType("envoy.cluster.original_dst", "", original_dst::build),
    ClusterType("envoy.clusters.dns", "envoy.extensions.clusters.dns.v3.DnsCluster", dns::typed),
    ClusterType("envoy.clusters.aggregate", "envoy.extensions.clusters.aggregate.v3.ClusterConfig", aggregate::build),
    ClusterType("envoy.clusters.dynamic_forward_proxy", dynamic_forward_proxy::TYPE, dynamic_forward_proxy::build),
];

/// Sorts out the type and reads what belongs to it.
pub fn build(
    discovery_type: ClusterDiscoveryType,
    mut parts: Parts<'_>,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Discovery> {
    let (cluster, lb_provided) = (parts.cluster, parts.lb_provided);
    let ClusterType(_, _, build) = match discovery_type {
        ClusterDiscoveryType::Type(number) => by_number(number, &parts, cx)?,
        ClusterDiscoveryType::ClusterType(custom) => {
            if parts.eds.is_some() {
                return Err(cx.error("eds_cluster_config set in a non-EDS cluster"));
            }
            let CustomClusterType { name, typed_config } = custom;
            parts.typed_config = typed_config.unwrap_or_default();
            cx.field("cluster_type", |cx| by_extension(&name, &parts.typed_config, cx))?
        }
    };
    let discovery = build(parts, cx)?;
    match (lb_provided, discovery.provided().is_some()) {
        (true, false) => Err(cx.error(format!(
            "cluster manager: cluster provided LB specified but cluster '{cluster}' did not provide one. \
             Check cluster documentation."
        ))),
        (false, true) => Err(cx.error(format!(
            "cluster manager: cluster provided LB not specified but cluster '{cluster}' provided one. \
             Check cluster documentation."
        ))),
        _ => Ok(discovery),
    }
}

/// `type`
fn by_number(number: i32, parts: &Parts<'_>, cx: &BuildCx<'_>) -> ConfigResult<&'static ClusterType> {
    let known = DiscoveryType::try_from(number).map_err(|_| cx.error_at("type", "unknown value"))?;
    let name = match known {
        DiscoveryType::Static => "envoy.cluster.static",
        DiscoveryType::StrictDns => "envoy.cluster.strict_dns",
        DiscoveryType::LogicalDns => "envoy.cluster.logical_dns",
        DiscoveryType::Eds => "envoy.cluster.eds",
        DiscoveryType::OriginalDst => "envoy.cluster.original_dst",
    };
    if known != DiscoveryType::Eds && parts.eds.is_some() {
        return Err(cx.error("eds_cluster_config set in a non-EDS cluster"));
    }
    if known == DiscoveryType::OriginalDst && !parts.lb_provided {
        return Err(cx.error(
            "cluster: LB policy is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed with \
             cluster type 'ORIGINAL_DST'",
        ));
    }
    by_extension(name, &Any::default(), cx)
}

/// By the configuration's type, or by name where there is none. As in Envoy, a `TypedStruct` stands for nothing here.
fn by_extension(name: &str, config: &Any, cx: &BuildCx<'_>) -> ConfigResult<&'static ClusterType> {
    let of_type = config.type_name();
    let found = match of_type {
        "" => TYPES.iter().find(|t| t.0 == name),
        _ => TYPES.iter().find(|t| t.1 == of_type),
    };
    found.ok_or_else(|| {
        let (what, which) = if of_type.is_empty() {
            ("name", name)
        } else {
            ("type", of_type)
        };
        cx.error(format!(
            "Didn't find a registered cluster factory implementation for {what}: '{which}'"
        ))
    })
}

/// `type: STATIC`
fn fixed(parts: Parts<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Discovery> {
    Ok(Discovery::Static(match parts.assignment {
        Some(assignment) => cx.field("load_assignment", |cx| from_assignment(assignment, cx))?,
        None => Assignment::default(),
    }))
}
