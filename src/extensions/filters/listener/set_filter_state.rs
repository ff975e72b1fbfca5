//! `envoy.filters.listener.set_filter_state`: leaves formatted texts in the filter state of a new connection.

use std::{rc::Rc, sync::Arc};

use futures_util::future::{LocalBoxFuture, ready};
use xds_protos::envoy::extensions::filters::listener::set_filter_state::v3::Config as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::set_filter_state::FilterStateValues,
    formatter::FormatCx,
    http::{ConnectionInfo, StreamInfo},
    listener::{ListenerFilter, ListenerFilterCx, ListenerFilterFactory, Refused},
};

/// The extension.
pub struct Factory;

impl ListenerFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.listener.set_filter_state";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>> {
        coverage!(cx, proto => Proto { supported { on_accept } });
        let values = FilterStateValues::build("on_accept", on_accept, cx)?;
        Ok(Arc::new(SetFilterState(values)))
    }
}

struct SetFilterState(FilterStateValues);

impl ListenerFilter for SetFilterState {
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>> {
        // Formats read a stream of a connection, which is nobody else's yet: it is lent out for as long as they do.
        let info = Rc::new(std::mem::replace(cx.info, ConnectionInfo::of_nobody()));
        self.set(&info);
        if let Some(info) = Rc::into_inner(info) {
            *cx.info = info;
        }
        Box::pin(ready(Ok(())))
    }
}

impl SetFilterState {
    fn set(&self, info: &Rc<ConnectionInfo>) {
        let mut stream = StreamInfo::new(info.clone(), None);
        stream.metadata.clone_from(&info.metadata.borrow());
        let cx = FormatCx {
            request: None,
            response: None,
            info: &stream,
        };
        // Each value may read those before it.
        for value in self.0.iter() {
            if let Some(made) = value.object(&cx) {
                made.set(&mut info.filter_state.borrow_mut());
            }
        }
    }
}
