//! `envoy.filters.network.sni_dynamic_forward_proxy`: a TLS connection that is passed through goes to the host that
//! its client names; it waits here until that is known.

use std::{rc::Rc, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::{
    FilterConfig, filter_config::PortSpecifier,
};

use crate::{
    config::{BuildCx, ConfigResult},
    http::{
        ConnectionInfo,
        stream_info::{Sharing, StringObject},
    },
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory},
    server::Worker,
    upstream::dynamic_forward_proxy::{DYNAMIC_HOST, DYNAMIC_PORT, DnsCache, DnsCaches, Load},
};

/// Envoy's default of `port_value`.
const PORT: u32 = 443;

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.sni_dynamic_forward_proxy";
    type Proto = FilterConfig;

    fn build(&self, proto: FilterConfig, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => FilterConfig {
            supported { dns_cache_config, port_specifier }
            ignored { save_upstream_address: "the connection tells its address by itself" }
        });
        let cache = cx.required("dns_cache_config", dns_cache_config, DnsCaches::get)?;
        let port = match port_specifier {
            Some(PortSpecifier::PortValue(port)) => port,
            None => PORT,
        };
        let port =
            u16::try_from(port).map_err(|_| cx.error_at("port_value", "value must be inside range (0, 65535]"))?;
        Ok(NetworkFilter::Gate(Arc::new(SniDynamicForwardProxy { cache, port })))
    }
}

struct SniDynamicForwardProxy {
    cache: Arc<DnsCache>,
    port: u16,
}

impl GateFilter for SniDynamicForwardProxy {
    fn on_connection(self: Arc<Self>, worker: Rc<Worker>, connection: Connection) -> LocalBoxFuture<'static, Gated> {
        Box::pin(async move {
            match self.admits(&worker, &connection.info).await {
                true => Gated::Pass(connection),
                false => Gated::Closed(connection.info, None),
            }
        })
    }
}

impl SniDynamicForwardProxy {
    /// Waits for the host, if one is named. False: there is no room for it.
    async fn admits(&self, worker: &Rc<Worker>, info: &ConnectionInfo) -> bool {
        let of_state = |name: &str| {
            let state = info.filter_state.borrow();
            state.get(name).and_then(|o| o.as_text()).map(|text| text.into_owned())
        };
        let host = of_state(DYNAMIC_HOST).or_else(|| info.server_name.as_deref().map(str::to_owned));
        let Some(host) = host.filter(|h| !h.is_empty()) else {
            return true;
        };
        let Some(_pending) = self.cache.enter() else {
            return false;
        };
        let port = of_state(DYNAMIC_PORT)
            .and_then(|port| port.parse().ok())
            .filter(|port| *port > 0)
            .unwrap_or(self.port);
        // The balancer finds the host by the same port.
        let text = StringObject(port.to_string().into());
        info.filter_state
            .borrow_mut()
            .set(DYNAMIC_PORT.into(), Rc::new(text), Sharing::None, false);
        match self.cache.load(&host, port, &worker.server) {
            Load::InCache(_) => true,
            Load::Loading(loading) => {
                // Whatever came of it: it is the balancer that finds no host.
                let _ = loading.await;
                true
            }
            Load::Overflow => false,
        }
    }
}
