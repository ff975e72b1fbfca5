//! Statistics of gRPC calls (`envoy.filters.http.grpc_stats`): statuses and messages, by method if wanted.

mod filter;

use std::{collections::HashSet, sync::Arc};

use xds_protos::envoy::{
    config::core::v3::{GrpcMethodList, grpc_method_list::Service},
    extensions::filters::http::grpc_stats::v3::{FilterConfig as Proto, filter_config::PerMethodStatSpecifier},
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory},
};

pub use filter::MessageCounts;

/// The extension.
pub struct Factory;

/// Which methods have statistics of their own; the others are counted together.
pub(super) enum Methods {
    All,
    /// Service and method.
    Listed(HashSet<(String, String)>),
}

/// The filter's configuration.
pub(super) struct Config {
    pub methods: Methods,
    /// `emit_filter_state`
    pub filter_state: bool,
    /// `enable_upstream_stats`
    pub upstream_times: bool,
    /// `replace_dots_in_grpc_service_name`; listed services keep their names, as in Envoy.
    pub replace_dots: bool,
}

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.grpc_stats";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Proto {
            supported {
                emit_filter_state, enable_upstream_stats, replace_dots_in_grpc_service_name, per_method_stat_specifier,
            }
        });
        let methods = match per_method_stat_specifier {
            Some(PerMethodStatSpecifier::StatsForAllMethods(all)) if all.value => Methods::All,
            Some(PerMethodStatSpecifier::StatsForAllMethods(_)) | None => Methods::Listed(HashSet::new()),
            Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => Methods::Listed(listed(list, cx)?),
        };
        Ok(Arc::new(filter::GrpcStatsFilter(Arc::new(Config {
            methods,
            filter_state: emit_filter_state,
            upstream_times: enable_upstream_stats,
            replace_dots: replace_dots_in_grpc_service_name,
        }))))
    }
}

fn listed(proto: GrpcMethodList, cx: &mut BuildCx<'_>) -> ConfigResult<HashSet<(String, String)>> {
    coverage!(cx, proto => GrpcMethodList { supported { services } });
    let mut methods = HashSet::new();
    for proto in services {
        coverage!(cx, proto => Service { supported { name, method_names } });
        methods.extend(method_names.into_iter().map(|method| (name.clone(), method)));
    }
    Ok(methods)
}
