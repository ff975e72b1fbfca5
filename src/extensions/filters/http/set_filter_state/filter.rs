//! One stream that gets filter state.

use std::{rc::Rc, sync::Arc};

use super::Config;
use crate::{
    formatter::FormatCx,
    http::{
        RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        stream_info::StringObject,
    },
};

/// The filter's configuration.
pub(super) struct SetFilterState(pub Arc<Config>);

impl HttpFilterConfig for SetFilterState {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        apply(&self.0, cx, head);
        // The route's come last, so that they have the last word.
        let of_route = cx.route.clone();
        let of_route = of_route.as_ref().and_then(|r| r.filter_config(&cx.filter_name));
        if let Some(config) = of_route.and_then(|c| c.downcast_ref::<Config>()) {
            apply(config, cx, head);
        }
        Step::Continue
    }
}

fn apply(config: &Config, cx: &mut FilterCx, head: &RequestHead) {
    for entry in &config.entries {
        let mut text = Vec::new();
        entry.format.write(
            &mut text,
            &FormatCx {
                request: Some(head),
                response: None,
                info: &cx.info,
            },
        );
        if text.is_empty() && entry.skip_if_empty {
            continue;
        }
        let object = StringObject(String::from_utf8_lossy(&text).into());
        cx.info
            .filter_state
            .set(entry.key.clone(), Rc::new(object), entry.sharing, false);
    }
    cx.clear_route_cache |= config.clear_route_cache;
}
