//! `AccessLogFilter`: whether a stream is worth a line.

use std::time::Instant;

use xds_protos::envoy::{
    config::{
        accesslog::v3::{
            AccessLogFilter as Proto, AndFilter, ComparisonFilter, DurationFilter, ExtensionFilter, GrpcStatusFilter,
            HeaderFilter, LogTypeFilter, MetadataFilter, OrFilter, ResponseFlagFilter, RuntimeFilter, StatusCodeFilter,
            access_log_filter::FilterSpecifier, comparison_filter::Op, extension_filter,
        },
        core::v3::RuntimeUInt32,
    },
    data::accesslog::v3::AccessLogType,
    extensions::access_loggers::filters::cel::v3::ExpressionFilter,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, FractionalPercent, fraction, plain, unpack},
    http::{Flag, RequestHead, ResponseHead, StreamInfo, grpc},
    matching::{
        HeaderMatcher, MetadataMatcher,
        cel::{CelExpression, CelOptions},
        tree::MatchCx,
    },
    runtime::Key,
};

/// A filter, built. Local reply mappers use it too.
pub enum LogFilter {
    /// `status_code_filter`
    Status(Comparison),
    /// `duration_filter`, milliseconds
    Duration(Comparison),
    /// `header_filter`
    Header(Box<HeaderMatcher>),
    /// `response_flag_filter`; empty: any flag
    Flags(Vec<Flag>),
    /// `runtime_filter`
    Runtime(RuntimeShare),
    /// `grpc_status_filter`
    Grpc(Vec<i32>, bool),
    /// `metadata_filter`
    Metadata(Box<MetadataMatcher>, bool),
    /// `and_filter`
    All(Vec<LogFilter>),
    /// `or_filter`
    Any(Vec<LogFilter>),
    /// `not_health_check_filter`
    NotHealthCheck,
    /// `envoy.access_loggers.extension_filters.cel`
    Cel(Box<CelExpression>),
    /// `log_type_filter`: names of [`StreamInfo::access_log_type`]
    LogType(Vec<&'static str>, bool),
    /// `traceable_filter`: constant here.
    Always(bool),
}

/// `ComparisonFilter`
pub struct Comparison {
    op: Op,
    value: u64,
    key: Key,
}

/// `RuntimeFilter`: the key's value is the numerator over the configured denominator.
pub struct RuntimeShare {
    default: FractionalPercent,
    key: Key,
    independent: bool,
}

impl RuntimeShare {
    /// Requests with a request id are chosen by it, so that all proxies on the way choose the same.
    fn hit(&self, request: Option<&RequestHead>) -> bool {
        let of_request = || {
            let id = request?.headers.get("x-request-id")?.to_str().ok()?;
            u64::from_str_radix(id.get(..8)?, 16).ok()
        };
        let random = (!self.independent).then(of_request).flatten();
        let denominator = u64::from(self.default.denominator());
        let numerator = self.key.integer(self.default.numerator().into());
        random.unwrap_or_else(|| fastrand::u64(..)) % denominator < numerator.min(denominator)
    }
}

impl Comparison {
    fn build(proto: Option<ComparisonFilter>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let Some(proto) = proto else {
            return Err(cx.error_at("comparison", "value is required"));
        };
        coverage!(cx, proto => ComparisonFilter { supported { op, value } });
        let (value, key) = match value {
            Some(value) => {
                coverage!(cx, value => RuntimeUInt32 { supported { default_value, runtime_key } });
                (default_value.into(), cx.server.runtime.key(&runtime_key))
            }
            None => (0, Key::NONE),
        };
        Ok(Self {
            op: Op::try_from(op).unwrap_or_default(),
            value,
            key,
        })
    }

    fn holds(&self, n: u64) -> bool {
        let value = self.key.integer(self.value);
        match self.op {
            Op::Eq => n == value,
            Op::Ge => n >= value,
            Op::Le => n <= value,
            Op::Ne => n != value,
        }
    }
}

impl LogFilter {
    /// Builds a filter.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { filter_specifier } });
        let Some(specifier) = filter_specifier else {
            return Err(cx.error_at("filter_specifier", "value is required"));
        };
        match specifier {
            FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison }) => cx
                .field("status_code_filter", |cx| Comparison::build(comparison, cx))
                .map(Self::Status),
            FilterSpecifier::DurationFilter(DurationFilter { comparison }) => cx
                .field("duration_filter", |cx| Comparison::build(comparison, cx))
                .map(Self::Duration),
            FilterSpecifier::HeaderFilter(HeaderFilter { header }) => cx
                .field("header_filter", |cx| {
                    cx.required("header", header, HeaderMatcher::build)
                })
                .map(|m| Self::Header(Box::new(m))),
            FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags }) => cx
                .each("response_flag_filter.flags", flags, |f, cx| {
                    Flag::from_short(&f).ok_or_else(|| cx.error(format!("unknown response flag '{f}'")))
                })
                .map(Self::Flags),
            FilterSpecifier::RuntimeFilter(filter) => {
                coverage!(cx, filter => RuntimeFilter {
                    supported { percent_sampled, runtime_key, use_independent_randomness }
                });
                Ok(Self::Runtime(RuntimeShare {
                    default: percent_sampled.as_ref().map_or(FractionalPercent::ZERO, fraction),
                    key: cx.server.runtime.key(&runtime_key),
                    independent: use_independent_randomness,
                }))
            }
            FilterSpecifier::GrpcStatusFilter(filter) => {
                coverage!(cx, filter => GrpcStatusFilter { supported { statuses, exclude } });
                Ok(Self::Grpc(statuses, exclude))
            }
            FilterSpecifier::MetadataFilter(filter) => {
                coverage!(cx, filter => MetadataFilter { supported { matcher, match_if_key_not_found } });
                let missing = match_if_key_not_found.is_none_or(|v| v.value);
                match cx.opt("metadata_filter.matcher", matcher, MetadataMatcher::build)? {
                    Some(matcher) => Ok(Self::Metadata(Box::new(matcher), missing)),
                    None => Ok(Self::Always(missing)),
                }
            }
            FilterSpecifier::AndFilter(AndFilter { filters }) => {
                cx.each("and_filter.filters", filters, Self::build).map(Self::All)
            }
            FilterSpecifier::OrFilter(OrFilter { filters }) => {
                cx.each("or_filter.filters", filters, Self::build).map(Self::Any)
            }
            FilterSpecifier::NotHealthCheckFilter(_) => Ok(Self::NotHealthCheck),
            // As in Envoy 1.40, where no line passes it, whether its request is traced or not.
            FilterSpecifier::TraceableFilter(_) => Ok(Self::Always(false)),
            FilterSpecifier::LogTypeFilter(filter) => {
                coverage!(cx, filter => LogTypeFilter { supported { types, exclude } });
                let names = types.into_iter().filter_map(|t| AccessLogType::try_from(t).ok());
                Ok(Self::LogType(names.map(|t| t.as_str_name()).collect(), exclude))
            }
            FilterSpecifier::ExtensionFilter(filter) => cx.field("extension_filter", |cx| extension(filter, cx)),
        }
    }

    /// Whether the stream passes.
    pub fn passes(&self, request: Option<&RequestHead>, response: Option<&ResponseHead>, info: &StreamInfo) -> bool {
        match self {
            Self::Status(c) => c.holds(info.response_code.map_or(0, |s| s.as_u16().into())),
            Self::Duration(c) => {
                let end = info.end.unwrap_or_else(Instant::now);
                c.holds(u64::try_from(end.duration_since(info.start).as_millis()).unwrap_or(u64::MAX))
            }
            Self::Header(m) => request.is_some_and(|r| m.matches(r)),
            Self::Flags(flags) if flags.is_empty() => !info.flags.is_empty(),
            Self::Flags(flags) => flags.iter().any(|f| info.flags.has(*f)),
            Self::Runtime(share) => share.hit(request),
            Self::Grpc(statuses, exclude) => statuses.contains(&grpc_status(response, info)) != *exclude,
            Self::Metadata(matcher, missing) => {
                if info.metadata.is_empty() {
                    *missing
                } else {
                    matcher.matches_dynamic(info)
                }
            }
            Self::NotHealthCheck => !info.health_check,
            Self::All(all) => all.iter().all(|f| f.passes(request, response, info)),
            Self::Any(any) => any.iter().any(|f| f.passes(request, response, info)),
            Self::Cel(expression) => expression.matches(&MatchCx {
                request,
                response,
                ..MatchCx::stream(info)
            }),
            Self::LogType(types, exclude) => types.contains(&info.access_log_type) != *exclude,
            Self::Always(constant) => *constant,
        }
    }
}

/// From trailers, else headers, else the HTTP status mapped as gRPC maps it.
fn grpc_status(response: Option<&ResponseHead>, info: &StreamInfo) -> i32 {
    let trailers = info.response_trailers.as_ref();
    let told = trailers
        .and_then(|t| t.get("grpc-status"))
        .or_else(|| response.and_then(|r| r.headers.get("grpc-status")));
    if let Some(status) = told.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()) {
        return status;
    }
    info.response_code
        .map_or(2, grpc::status_of_http)
        .try_into()
        .unwrap_or(2)
}

fn extension(proto: ExtensionFilter, cx: &mut BuildCx<'_>) -> ConfigResult<LogFilter> {
    coverage!(cx, proto => ExtensionFilter { supported { name, config_type } });
    let any = match config_type {
        Some(extension_filter::ConfigType::TypedConfig(any)) => plain(any, cx)?,
        None => Default::default(),
    };
    cx.field("typed_config", |cx| match any.type_name() {
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter" => {
            let proto = unpack::<ExpressionFilter>(&any, cx)?;
            coverage!(cx, proto => ExpressionFilter { supported { expression, cel_config } });
            let options = CelOptions::build(cel_config, cx)?;
            CelExpression::parse(&expression, options, cx).map(|e| LogFilter::Cel(Box::new(e)))
        }
        other => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{other}'"
        ))),
    })
}
