//! `envoy.filters.udp.session.dynamic_forward_proxy`: a session goes to the host that filter state names.
//!
//! It is another session filter that has to leave `envoy.upstream.dynamic_host` and `.dynamic_port` before, and none
//! that Envoy has built in does. Without them the filter lets everything pass, and so it does here.

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::udp::udp_proxy::session::dynamic_forward_proxy::v3::{
    FilterConfig as Proto,
    filter_config::{BufferOptions, ImplementationSpecifier},
};

use super::super::session_filter::{SessionFilter, UdpSessionFilter, UdpSessionFilterFactory};
use crate::{
    config::{BuildCx, ConfigResult},
    stats::Stats,
    stats_block,
    upstream::dynamic_forward_proxy::{DnsCache, DnsCaches},
};

stats_block! {
    /// `udp.session.dynamic_forward_proxy.<stat_prefix>.*`
    pub struct DynamicForwardProxyStats {
        counter buffer_overflow, "Datagrams that found no room while their host was looked up";
    }
}

/// The extension.
pub struct Factory;

impl UdpSessionFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.udp.session.dynamic_forward_proxy";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpSessionFilter>> {
        coverage!(cx, proto => Proto { supported { stat_prefix, implementation_specifier, buffer_options } });
        let cache = match implementation_specifier {
            Some(ImplementationSpecifier::DnsCacheConfig(config)) => {
                cx.field("dns_cache_config", |cx| DnsCaches::get(config, cx))?
            }
            None => return Err(cx.error_at("dns_cache_config", "value is required")),
        };
        cx.opt("buffer_options", buffer_options, |proto, cx| {
            coverage!(cx, proto => BufferOptions {
                supported {}
                ignored {
                    max_buffered_datagrams: "no session waits for its host",
                    max_buffered_bytes: "no session waits for its host",
                }
            });
            Ok(())
        })?;
        let scope = format!("udp.session.dynamic_forward_proxy.{stat_prefix}.");
        Ok(Arc::new(DynamicForwardProxy {
            _cache: cache,
            _stats: cx.server.stats.scope(&scope).block(),
        }))
    }
}

struct DynamicForwardProxy {
    /// Of the cluster of the same name, which looks hosts up in it.
    _cache: Arc<DnsCache>,
    /// Listed, as Envoy lists them.
    _stats: Stats<DynamicForwardProxyStats>,
}

impl UdpSessionFilter for DynamicForwardProxy {
    fn create(&self) -> Box<dyn SessionFilter> {
        Box::new(Transparent)
    }
}

/// A session for which no host was named.
struct Transparent;

impl SessionFilter for Transparent {
    fn on_data(&mut self, bytes: &[u8], next: &mut dyn FnMut(&[u8])) {
        next(bytes);
    }

    fn on_write(&mut self, bytes: &[u8], next: &mut dyn FnMut(&[u8])) {
        next(bytes);
    }
}
