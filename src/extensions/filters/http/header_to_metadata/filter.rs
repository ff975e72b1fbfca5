//! One stream whose headers become metadata.

use std::{borrow::Cow, sync::Arc};

use http::HeaderMap;

use super::config::{Config, Rule, Source};
use crate::{
    http::{
        RequestHead, ResponseHead, StreamInfo,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    matching::{HeaderLookup, cookie},
};

/// The filter's configuration.
pub(super) struct HeaderToMetadata(pub Arc<Config>);

impl HttpFilterConfig for HeaderToMetadata {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

impl Filter {
    fn config(&self, cx: &FilterCx) -> Arc<Config> {
        cx.route_config::<Arc<Config>>().unwrap_or(&self.0).clone()
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        for rule in &self.config(cx).request {
            let value = match &rule.source {
                Source::Header(lookup) => lookup.get(head).map(Cow::into_owned),
                Source::Cookie(name) => of_cookie(&head.headers, name),
            };
            apply(rule, value, &mut head.headers, &mut cx.info);
        }
        Step::Continue
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        for rule in &self.config(cx).response {
            let value = match &rule.source {
                Source::Header(HeaderLookup::Header(name)) => joined(&head.headers, name.as_str()),
                Source::Header(HeaderLookup::Pseudo(name)) => head.get(name).map(<[u8]>::to_vec),
                Source::Header(HeaderLookup::Impossible) => None,
                Source::Cookie(name) => of_cookie(&head.headers, name),
            };
            apply(rule, value, &mut head.headers, &mut cx.info);
        }
        Step::Continue
    }
}

fn apply(rule: &Rule, value: Option<Vec<u8>>, headers: &mut HeaderMap, info: &mut StreamInfo) {
    let assignment = if value.is_some() { &rule.present } else { &rule.missing };
    if let (true, Some(_), Source::Header(HeaderLookup::Header(name))) = (rule.remove, &value, &rule.source) {
        headers.remove(name);
    }
    let Some(assignment) = assignment else { return };
    if let Some(value) = assignment.value(&value.unwrap_or_default()) {
        let namespace = info.metadata.entry(assignment.namespace.clone()).or_default();
        namespace.fields.insert(assignment.key.clone(), value);
    }
}

/// An empty cookie is as good as none.
fn of_cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    cookie(headers, name).filter(|v| !v.is_empty()).map(<[u8]>::to_vec)
}

/// All values of a header, joined by commas.
fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let values: Vec<_> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
    (!values.is_empty()).then(|| values.join(b",".as_slice()))
}
