//! One stream that may belong to a session.

use std::sync::Arc;

use super::config::{Config, PerRoute};
use crate::http::{
    Flag, RequestHead, ResponseHead,
    filter::{FilterCx, HttpFilter, HttpFilterConfig, OverrideHost, Step, StreamCx},
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.stateful_session.<stat_prefix>.` statistics
    pub(super) struct SessionStats {
        counter routed, "Requests that reached the host of their session";
        counter failed_open, "Requests that another host took";
        counter failed_closed, "Requests refused because the host was not to be had";
        counter no_session, "Requests without a session that reached a host";
    }
}

/// The filter's configuration.
pub(super) struct StatefulSessionFilter(pub Arc<Config>);

impl HttpFilterConfig for StatefulSessionFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            state: State::Off,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    state: State,
}

enum State {
    /// The route wants no sessions, or the request never came this far.
    Off,
    /// This request cannot have a session.
    None,
    /// It may; the host it asks for.
    Session(Option<String>),
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        match cx.route_config::<PerRoute>() {
            Some(PerRoute(None)) => return Step::Continue,
            Some(PerRoute(Some(of_route))) => self.config = of_route.clone(),
            None => {}
        }
        let config = &*self.config;
        let Some(state) = config.state.as_ref().filter(|s| s.concerns(head)) else {
            self.state = State::None;
            return Step::Continue;
        };
        let host = state.host(head);
        if let Some(address) = &host {
            cx.override_host = Some(OverrideHost {
                address: address.as_str().into(),
                strict: config.strict,
                not_found: config.not_found,
            });
        }
        self.state = State::Session(host);
        Step::Continue
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        let config = &*self.config;
        let stats = config.stats.as_ref().map(|s| s.local());
        let host = cx.info.upstream.host.as_ref().map(|h| h.address.to_string());
        match (&self.state, host) {
            (State::Off, _) | (State::None, None) => {}
            (State::None, Some(_)) => {
                if let Some(stats) = stats {
                    stats.no_session.inc();
                }
            }
            (State::Session(asked), Some(host)) => {
                if let Some(state) = &config.state {
                    state.update(asked.as_deref(), &host, head);
                }
                match stats {
                    Some(stats) if asked.as_deref() == Some(host.as_str()) => stats.routed.inc(),
                    Some(stats) if !config.strict => stats.failed_open.inc(),
                    _ => {}
                }
            }
            (State::Session(_), None) => {
                if let Some(stats) = stats
                    && config.strict
                    && cx.info.flags.has(Flag::NoHealthyUpstream)
                {
                    stats.failed_closed.inc();
                }
            }
        }
        Step::Continue
    }
}
