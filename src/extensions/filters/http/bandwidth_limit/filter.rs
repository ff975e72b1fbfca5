//! One stream under the limit.

use std::{rc::Rc, sync::Arc};

use super::{
    body::{Delays, Direction, Limit},
    config::Config,
};
use crate::{
    extensions::filters::common::paced::Paced,
    http::{
        Body, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
};

/// The filter's configuration.
pub(super) struct BandwidthLimitFilter(pub Arc<Config>);

impl HttpFilterConfig for BandwidthLimitFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            delays: Rc::default(),
            request: false,
            response: false,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    delays: Rc<Delays>,
    request: bool,
    response: bool,
}

impl Filter {
    fn limited(&self, body: Body, direction: Direction) -> Body {
        let limit = Limit::new(self.config.clone(), direction, self.delays.clone());
        Body::boxed(Paced::new(body, limit))
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, _: &'a mut RequestHead, _: bool) -> Step<'a> {
        if let Some(of_route) = cx.route_config::<Arc<Config>>() {
            self.config = of_route.clone();
        }
        self.request = self.config.requests && self.config.enabled.enabled();
        if self.request {
            self.config.stats.local().request_enabled.inc();
        }
        Step::Continue
    }

    fn request_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.request {
            true => self.limited(body, Direction::Request),
            false => body,
        }
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        _: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        self.response = self.config.responses && self.config.enabled.enabled();
        if self.response {
            self.config.stats.local().response_enabled.inc();
        }
        Step::Continue
    }

    fn response_body(&mut self, _: &mut FilterCx, body: Body) -> Body {
        match self.response {
            true => self.limited(body, Direction::Response),
            false => body,
        }
    }
}
