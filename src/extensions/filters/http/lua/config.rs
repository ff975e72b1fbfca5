//! `Lua` and `LuaPerRoute`: scripts are compiled, and run once, when the configuration comes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use xds_protos::{
    envoy::{
        config::core::v3::DataSource,
        extensions::filters::http::lua::v3::{Lua as Proto, LuaPerRoute, lua_per_route::Override},
    },
    google::protobuf::Struct,
};

use super::vm::{Vm, message};
use crate::{
    config::{BuildCx, ConfigResult, read_data_source},
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.lua.` statistics
    pub(super) struct LuaStats {
        counter errors, "Scripts that failed";
        counter executions, "Scripts that were started, the request's and the response's each by itself";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    /// `default_source_code`, or `inline_code`.
    pub default: Option<Arc<Script>>,
    /// `source_codes`, which routes name.
    pub named: HashMap<String, Arc<Script>>,
    /// `clear_route_cache`: when a script changes request headers; default true.
    pub clear_route_cache: bool,
    /// `filter_context`
    pub context: Arc<Struct>,
    pub stats: Stats<LuaStats>,
}

/// What a route says.
pub(super) struct PerRoute {
    pub choice: Choice,
    /// `filter_context`; none: the filter's.
    pub context: Option<Arc<Struct>>,
}

/// Which script runs on a route.
pub(super) enum Choice {
    /// The filter's default.
    Default,
    /// `disabled`
    Off,
    /// `name`: one of the filter's `source_codes`; none runs if there is no such script.
    Named(String),
    /// `source_code`
    Own(Arc<Script>),
}

/// A script. Each worker has a virtual machine for it, made at its first use.
pub(super) struct Script {
    /// Unique in the process.
    pub id: u64,
    pub source: String,
    /// `package_paths`, joined; empty: only what is built in.
    pub path: String,
    /// Whether it has `envoy_on_request`.
    pub on_request: bool,
    /// Whether it has `envoy_on_response`.
    pub on_response: bool,
}

impl Script {
    /// Compiles the script and runs what stands outside its functions; the error is Envoy's text.
    pub fn load(source: String, path: String) -> Result<Self, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut script = Self {
            id: NEXT.fetch_add(1, Relaxed),
            source,
            path,
            on_request: false,
            on_response: false,
        };
        let vm = Vm::new(&script).map_err(|error| format!("script load error: {}", message(&error)))?;
        script.on_request = vm.on_request.is_some();
        script.on_response = vm.on_response.is_some();
        Ok(script)
    }

    fn build(source: DataSource, path: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Self>> {
        let bytes = read_data_source(source, cx)?;
        let text = String::from_utf8(bytes).map_err(|_| cx.error("script load error: not UTF-8"))?;
        Self::load(text, path.to_owned())
            .map(Arc::new)
            .map_err(|reason| cx.error(reason))
    }
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                inline_code, source_codes, default_source_code, stat_prefix, clear_route_cache, filter_context,
                package_paths,
            }
            rejected { package_cpaths: "native modules are not loaded into the proxy" }
        });
        let path = package_paths.join(";");
        if default_source_code.is_some() && !inline_code.is_empty() {
            return Err(
                cx.error("Error: Only one of `inline_code` or `default_source_code` can be set for the Lua filter.")
            );
        }
        let default = match inline_code.is_empty() {
            true => cx.opt("default_source_code", default_source_code, |source, cx| {
                Script::build(source, &path, cx)
            })?,
            false => Some(Arc::new(
                Script::load(inline_code, path.clone()).map_err(|reason| cx.error_at("inline_code", reason))?,
            )),
        };
        let mut named = HashMap::new();
        for (name, source) in source_codes {
            let script = cx.field("source_codes", |cx| Script::build(source, &path, cx))?;
            named.insert(name, script);
        }
        let scope = match stat_prefix.as_str() {
            "" => format!("{}lua", cx.http_prefix),
            prefix => format!("{}lua.{prefix}", cx.http_prefix),
        };
        Ok(Self {
            default,
            named,
            clear_route_cache: clear_route_cache.is_none_or(|v| v.value),
            context: Arc::new(filter_context.unwrap_or_default()),
            stats: cx.server.stats.scope(&scope).block(),
        })
    }

    /// The script of a stream and its context.
    pub fn choose(&self, route: Option<&PerRoute>) -> Option<(Arc<Script>, Arc<Struct>)> {
        let script = match route.map_or(&Choice::Default, |r| &r.choice) {
            Choice::Default => self.default.clone(),
            Choice::Off => None,
            Choice::Named(name) => self.named.get(name).cloned(),
            Choice::Own(script) => Some(script.clone()),
        }?;
        let context = route.and_then(|r| r.context.clone());
        Some((script, context.unwrap_or_else(|| self.context.clone())))
    }
}

impl PerRoute {
    pub fn build(proto: LuaPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => LuaPerRoute {
            supported { r#override, filter_context, package_paths }
            rejected { package_cpaths: "native modules are not loaded into the proxy" }
        });
        let choice = match r#override {
            None => Choice::Default,
            Some(Override::Disabled(_)) => Choice::Off,
            Some(Override::Name(name)) => Choice::Named(name),
            Some(Override::SourceCode(source)) => {
                let path = package_paths.join(";");
                Choice::Own(cx.field("source_code", |cx| Script::build(source, &path, cx))?)
            }
        };
        Ok(Self {
            choice,
            context: filter_context.map(Arc::new),
        })
    }
}
