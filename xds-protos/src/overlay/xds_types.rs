//! The messages of `overlay/xds` and `overlay/udpa`.

use std::collections::HashMap;

use envoy_types::pb::google::protobuf::{Any, Duration, Struct};
use envoy_types::pb::xds::core::v3::{CidrRange, ContextParams};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::OnMatch;
use envoy_types::pb::xds::r#type::v3::CelExpression;
use prost::Message;

/// `xds.type.v3.TypedStruct`: a message written as a `Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    /// The type URL of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message in its JSON form.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

/// `udpa.type.v1.TypedStruct`: the older spelling, which Istio sends.
#[derive(Clone, PartialEq, Message)]
pub struct UdpaTypedStruct {
    /// The type URL of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message in its JSON form.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

/// `xds.type.v3.Int64Range`: from `start`, before `end`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Int64Range {
    /// The first value.
    #[prost(int64, tag = "1")]
    pub start: i64,
    /// The first value that is not in the range.
    #[prost(int64, tag = "2")]
    pub end: i64,
}

/// `xds.type.v3.Int32Range`: from `start`, before `end`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Int32Range {
    /// The first value.
    #[prost(int32, tag = "1")]
    pub start: i32,
    /// The first value that is not in the range.
    #[prost(int32, tag = "2")]
    pub end: i32,
}

/// `xds.type.v3.DoubleRange`: from `start`, before `end`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct DoubleRange {
    /// The first value.
    #[prost(double, tag = "1")]
    pub start: f64,
    /// The first value that is not in the range.
    #[prost(double, tag = "2")]
    pub end: f64,
}

/// `xds.type.matcher.v3.CelMatcher`
#[derive(Clone, PartialEq, Message)]
pub struct CelMatcher {
    /// The expression; required.
    #[prost(message, optional, tag = "1")]
    pub expr_match: Option<CelExpression>,
    /// For people.
    #[prost(string, tag = "2")]
    pub description: String,
}

/// `xds.type.matcher.v3.HttpAttributesCelMatchInput`: the attributes of a request, for CEL.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct HttpAttributesCelMatchInput {}

/// `xds.type.matcher.v3.IPMatcher`: longest prefix wins.
#[derive(Clone, PartialEq, Message)]
pub struct IpMatcher {
    /// The ranges and what follows from each.
    #[prost(message, repeated, tag = "1")]
    pub range_matchers: Vec<ip_matcher::IpRangeMatcher>,
}

/// Within [`IpMatcher`].
pub mod ip_matcher {
    use super::*;

    /// Ranges with one consequence.
    #[derive(Clone, PartialEq, Message)]
    pub struct IpRangeMatcher {
        /// The ranges; at least one.
        #[prost(message, repeated, tag = "1")]
        pub ranges: Vec<CidrRange>,
        /// What follows.
        #[prost(message, optional, tag = "2")]
        pub on_match: Option<OnMatch>,
        /// Whether a match here ends the search, though the match below it fails.
        #[prost(bool, tag = "3")]
        pub exclusive: bool,
    }
}

/// `xds.type.matcher.v3.ServerNameMatcher`: exact names, then `*.` suffixes, longest first.
#[derive(Clone, PartialEq, Message)]
pub struct ServerNameMatcher {
    /// The domains and what follows from each.
    #[prost(message, repeated, tag = "1")]
    pub domain_matchers: Vec<server_name_matcher::DomainMatcher>,
}

/// Within [`ServerNameMatcher`].
pub mod server_name_matcher {
    use super::*;

    /// Domains with one consequence.
    #[derive(Clone, PartialEq, Message)]
    pub struct DomainMatcher {
        /// The domains; at least one.
        #[prost(string, repeated, tag = "1")]
        pub domains: Vec<String>,
        /// What follows.
        #[prost(message, optional, tag = "2")]
        pub on_match: Option<OnMatch>,
    }
}

macro_rules! range_matcher {
    ($matcher:ident, $module:ident, $range:ident) => {
        #[doc = concat!("`xds.type.matcher.v3.", stringify!($matcher), "`")]
        #[derive(Clone, PartialEq, Message)]
        pub struct $matcher {
            /// The ranges and what follows from each.
            #[prost(message, repeated, tag = "1")]
            pub range_matchers: Vec<$module::RangeMatcher>,
        }

        #[doc = concat!("Within [`", stringify!($matcher), "`].")]
        pub mod $module {
            use super::*;

            /// Ranges with one consequence.
            #[derive(Clone, PartialEq, Message)]
            pub struct RangeMatcher {
                /// The ranges; at least one.
                #[prost(message, repeated, tag = "1")]
                pub ranges: Vec<$range>,
                /// What follows.
                #[prost(message, optional, tag = "2")]
                pub on_match: Option<OnMatch>,
            }
        }
    };
}

range_matcher!(Int64RangeMatcher, int64_range_matcher, Int64Range);
range_matcher!(Int32RangeMatcher, int32_range_matcher, Int32Range);
range_matcher!(DoubleRangeMatcher, double_range_matcher, DoubleRange);

/// `xds.core.v3.ResourceName`
#[derive(Clone, PartialEq, Message)]
pub struct ResourceName {
    /// The name within its authority and type.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Who the name belongs to.
    #[prost(string, tag = "2")]
    pub authority: String,
    /// The full name of the resource's message.
    #[prost(string, tag = "3")]
    pub resource_type: String,
    /// What else tells resources of one name apart.
    #[prost(message, optional, tag = "4")]
    pub context: Option<ContextParams>,
}

/// `xds.core.v3.Resource`
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its name.
    #[prost(message, optional, tag = "1")]
    pub name: Option<ResourceName>,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// The resource.
    #[prost(message, optional, tag = "3")]
    pub resource: Option<Any>,
}

/// `xds.data.orca.v3.OrcaLoadReport`: the load that a backend reports of itself.
#[derive(Clone, PartialEq, Message)]
pub struct OrcaLoadReport {
    /// May exceed 1 where a backend bursts.
    #[prost(double, tag = "1")]
    pub cpu_utilization: f64,
    /// From 0 to 1.
    #[prost(double, tag = "2")]
    pub mem_utilization: f64,
    /// Deprecated for [`rps_fractional`](Self::rps_fractional).
    #[prost(uint64, tag = "3")]
    pub rps: u64,
    /// What this request cost, by resource.
    #[prost(map = "string, double", tag = "4")]
    pub request_cost: HashMap<String, f64>,
    /// Utilization by resource, from 0 to 1.
    #[prost(map = "string, double", tag = "5")]
    pub utilization: HashMap<String, f64>,
    /// Requests per second.
    #[prost(double, tag = "6")]
    pub rps_fractional: f64,
    /// Errors per second.
    #[prost(double, tag = "7")]
    pub eps: f64,
    /// What the application chose to report.
    #[prost(map = "string, double", tag = "8")]
    pub named_metrics: HashMap<String, f64>,
    /// The application's own measure of its load; may exceed 1.
    #[prost(double, tag = "9")]
    pub application_utilization: f64,
}

/// `xds.service.orca.v3.OrcaLoadReportRequest`, of `OpenRcaService.StreamCoreMetrics`.
#[derive(Clone, PartialEq, Message)]
pub struct OrcaLoadReportRequest {
    /// How often reports should come.
    #[prost(message, optional, tag = "1")]
    pub report_interval: Option<Duration>,
    /// The request costs to report; none means all.
    #[prost(string, repeated, tag = "2")]
    pub request_cost_names: Vec<String>,
}

super::named!("udpa.type.v1": UdpaTypedStruct = "TypedStruct");
super::named!("xds.core.v3": Resource = "Resource", ResourceName = "ResourceName");
super::named!("xds.data.orca.v3": OrcaLoadReport = "OrcaLoadReport");
super::named!("xds.service.orca.v3": OrcaLoadReportRequest = "OrcaLoadReportRequest");
super::named!(
    "xds.type.v3":
    TypedStruct = "TypedStruct",
    Int64Range = "Int64Range",
    Int32Range = "Int32Range",
    DoubleRange = "DoubleRange",
);
super::named!(
    "xds.type.matcher.v3":
    CelMatcher = "CelMatcher",
    HttpAttributesCelMatchInput = "HttpAttributesCelMatchInput",
    IpMatcher = "IPMatcher",
    ServerNameMatcher = "ServerNameMatcher",
    Int64RangeMatcher = "Int64RangeMatcher",
    Int32RangeMatcher = "Int32RangeMatcher",
    DoubleRangeMatcher = "DoubleRangeMatcher",
);
