//! `typed_per_filter_config`: what a route, virtual host or route configuration says to one filter.

use std::{collections::HashMap, fmt};

use xds_protos::{
    envoy::config::route::v3::FilterConfig,
    google::protobuf::Any,
    prost::{Message, Name},
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    http::filter::RouteConfig,
};

/// Per-filter configuration of one level, by the filter's configured name.
#[derive(Clone, Default)]
pub struct PerFilterConfigs(Box<[(String, PerFilter)]>);

#[derive(Clone)]
struct PerFilter {
    config: Option<RouteConfig>,
    disabled: bool,
}

impl PerFilterConfigs {
    /// Builds the configurations of one level. The type of each is found by its type URL; one nobody knows is an
    /// error unless a `FilterConfig` says that it is optional.
    pub fn build(protos: HashMap<String, Any>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mut filters = protos
            .into_iter()
            .map(|(name, any)| {
                let filter = cx.field(&format!("typed_per_filter_config[{name}]"), |cx| {
                    PerFilter::build(&name, any, cx)
                })?;
                Ok((name, filter))
            })
            .collect::<ConfigResult<Vec<_>>>()?;
        filters.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self(filters.into()))
    }

    fn entry(&self, filter: &str) -> Option<&PerFilter> {
        self.0.iter().find(|(name, _)| name == filter).map(|(_, f)| f)
    }

    /// The configuration of this filter on this level.
    pub fn get(&self, filter: &str) -> Option<&RouteConfig> {
        self.entry(filter)?.config.as_ref()
    }

    /// Whether this level disables (true) or enables (false) the filter; none when it does not name it.
    pub fn disabled(&self, filter: &str) -> Option<bool> {
        Some(self.entry(filter)?.disabled)
    }
}

impl PerFilter {
    fn build(name: &str, any: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        if any.type_name() != FilterConfig::full_name() {
            return Self::enabled(name, &any, false, cx);
        }
        let proto = FilterConfig::decode(any.value.as_slice())
            .map_err(|e| cx.error(format!("Unable to unpack as {}: {e}", FilterConfig::full_name())))?;
        coverage!(cx, proto => FilterConfig { supported { config, is_optional, disabled } });
        if disabled {
            return Ok(Self { config: None, disabled });
        }
        match config {
            None => Err(cx.error(format!(
                "Empty route/virtual host per filter configuration for {name} filter"
            ))),
            // Without a type it only says that the filter is enabled.
            Some(any) if any.type_url.is_empty() => Ok(Self { config: None, disabled }),
            Some(any) => cx.field("config", |cx| Self::enabled(name, &any, is_optional, cx)),
        }
    }

    fn enabled(name: &str, any: &Any, is_optional: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = &plain(any.clone(), cx)?;
        let factory = cx.server.registry.find_http_route_config(any).cloned();
        let config = match factory {
            Some(factory) => Some(factory.build_route(any, cx)?),
            None if is_optional => None,
            None => {
                return Err(cx.error(format!(
                    "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                    any.type_name()
                )));
            }
        };
        Ok(Self {
            config,
            disabled: false,
        })
    }
}

impl fmt::Debug for PerFilterConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(n, p)| (n, p.disabled)))
            .finish()
    }
}
