//! The HTTP filters of a connection manager and of its upgrades.

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter as FilterProto, http_connection_manager::UpgradeConfig, http_filter::ConfigType,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    http::filter::HttpFilterConfig,
    router::RouterConfig,
    xds::resources::ecds_http::http_filter,
};

/// One HTTP filter of a chain.
pub struct FilterEntry {
    /// `name`: the key of its per-route configuration.
    pub name: Arc<str>,
    /// Built configuration.
    pub config: Arc<dyn HttpFilterConfig>,
    /// `disabled`: off unless a route turns it on.
    pub disabled: bool,
}

/// The filters before the router, and the router.
pub struct FilterChainConfig {
    /// In decoder order.
    pub filters: Vec<FilterEntry>,
    /// The terminal filter.
    pub router: Arc<RouterConfig>,
}

/// `upgrade_configs`: one protocol.
pub struct Upgrade {
    /// `upgrade_type`, lower-case: `websocket`, `connect`.
    pub kind: String,
    /// `enabled`, default true; a route may overrule it.
    pub enabled: bool,
    /// Its own filters, when it has some.
    pub chain: Option<FilterChainConfig>,
}

/// Builds the filters of a chain. The router is terminal and must stand last, as in Envoy.
pub(super) fn filter_chain(
    field: &str,
    protos: Vec<FilterProto>,
    stat_prefix: &str,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<FilterChainConfig> {
    let mut router = None;
    let count = protos.len();
    let mut filters = Vec::with_capacity(count.saturating_sub(1));
    for (i, proto) in protos.into_iter().enumerate() {
        cx.item(field, i, |cx| {
            coverage!(cx, proto => FilterProto { supported { name, is_optional, disabled, config_type } });
            let any = match config_type {
                Some(ConfigType::TypedConfig(any)) => any,
                Some(ConfigType::ConfigDiscovery(_)) if i + 1 == count => {
                    return Err(cx.error(format!("Error: filter config discovery for the terminal filter {name} is not supported.")));
                }
                Some(ConfigType::ConfigDiscovery(source)) => {
                    let config = cx.field("config_discovery", |cx| http_filter(&name, source, cx))?;
                    filters.push(FilterEntry { name: name.into(), config, disabled });
                    return Ok(());
                }
                // Envoy takes a filter without configuration by its type's default.
                None => Default::default(),
            };
            let any = plain(any, cx)?;
            if any.type_name() == "envoy.extensions.filters.http.router.v3.Router" {
                if i + 1 < count {
                    return Err(cx.error(format!("Error: terminal filter named {name} of type envoy.filters.http.router must be the last filter in a http filter chain.")));
                }
                if disabled {
                    return Err(cx.error(format!("Error: the last (terminal) filter ({name}) in the chain cannot be disabled by default.")));
                }
                router = Some(Arc::new(cx.field("typed_config", |cx| RouterConfig::build(&any, stat_prefix, cx))?));
                return Ok(());
            }
            let server = cx.server.clone();
            match server.registry.find_http_filter(&any) {
                Some(factory) if i + 1 == count => {
                    let kind = factory.name();
                    Err(cx.error(format!("Error: non-terminal filter named {name} of type {kind} is the last filter in a http filter chain.")))
                }
                Some(factory) => {
                    let config = cx.field("typed_config", |cx| factory.build(&any, cx))?;
                    filters.push(FilterEntry { name: name.into(), config, disabled });
                    Ok(())
                }
                None if is_optional => {
                    cx.ignored("typed_config", "an optional filter of an unknown type");
                    Ok(())
                }
                None => Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                    any.type_name()
                ))),
            }
        })?;
    }
    match router {
        Some(router) => Ok(FilterChainConfig { filters, router }),
        None => Err(cx.error_at(
            field,
            "the last filter of a chain must be terminal, such as envoy.filters.http.router",
        )),
    }
}

/// Builds `upgrade_configs`.
pub(super) fn upgrades(
    protos: Vec<UpgradeConfig>,
    stat_prefix: &str,
    cx: &mut BuildCx<'_>,
) -> ConfigResult<Vec<Upgrade>> {
    let mut names: Vec<String> = Vec::with_capacity(protos.len());
    for proto in &protos {
        let name = &proto.upgrade_type;
        if names.iter().any(|n| n.eq_ignore_ascii_case(name)) {
            return Err(cx.error(format!("Error: multiple upgrade configs with the same name: '{name}'")));
        }
        names.push(name.clone());
    }
    cx.each("upgrade_configs", protos, |u, cx| upgrade(u, stat_prefix, cx))
}

fn upgrade(proto: UpgradeConfig, stat_prefix: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Upgrade> {
    coverage!(cx, proto => UpgradeConfig { supported { upgrade_type, filters, enabled } });
    let chain = if filters.is_empty() {
        None
    } else {
        Some(filter_chain("filters", filters, stat_prefix, cx)?)
    };
    Ok(Upgrade {
        kind: upgrade_type.to_ascii_lowercase(),
        enabled: enabled.is_none_or(|v| v.value),
        chain,
    })
}
