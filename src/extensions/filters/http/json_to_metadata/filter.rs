//! One stream whose bodies are read.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use xds_protos::google::protobuf::Value;

use super::config::{Assignment, Config, JsonStats, Rule, Rules};
use crate::{
    http::{
        RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
        stream_info::Metadata,
    },
    stats::CounterCell,
};

/// Longest body that is read, in bytes.
const MOST_BODY: u64 = 1024 * 1024;

/// The filter's configuration.
pub(super) struct JsonToMetadata(pub Arc<Config>);

impl HttpFilterConfig for JsonToMetadata {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            config: self.0.clone(),
            read_request: false,
            read_response: false,
        }))
    }
}

struct Filter {
    config: Arc<Config>,
    read_request: bool,
    read_response: bool,
}

/// Counters of one direction.
struct Counters<'s> {
    success: &'s CounterCell,
    mismatched: &'s CounterCell,
    no_body: &'s CounterCell,
    invalid: &'s CounterCell,
}

impl<'s> Counters<'s> {
    fn request(stats: &'s JsonStats) -> Self {
        Self {
            success: &stats.rq_success,
            mismatched: &stats.rq_mismatched_content_type,
            no_body: &stats.rq_no_body,
            invalid: &stats.rq_invalid_json_body,
        }
    }

    fn response(stats: &'s JsonStats) -> Self {
        Self {
            success: &stats.resp_success,
            mismatched: &stats.resp_mismatched_content_type,
            no_body: &stats.resp_no_body,
            invalid: &stats.resp_invalid_json_body,
        }
    }
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, end: bool) -> Step<'a> {
        if let Some(of_route) = cx.route_config::<Arc<Config>>() {
            self.config = of_route.clone();
        }
        if let Some(rules) = &self.config.request {
            let counters = Counters::request(self.config.stats.local());
            self.read_request = begin(rules, &head.headers, end, &counters, &mut cx.info.metadata);
        }
        Step::Continue
    }

    fn buffer_request(&self) -> Option<u64> {
        self.read_request.then_some(MOST_BODY)
    }

    fn request_buffered<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a mut RequestHead,
        body: &'a mut Bytes,
    ) -> Step<'a> {
        if let Some(rules) = &self.config.request {
            read(
                rules,
                body,
                &Counters::request(self.config.stats.local()),
                &mut cx.info.metadata,
            );
        }
        Step::Continue
    }

    fn response_headers<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        end: bool,
    ) -> Step<'a> {
        if let Some(rules) = &self.config.response {
            let counters = Counters::response(self.config.stats.local());
            self.read_response = begin(rules, &head.headers, end, &counters, &mut cx.info.metadata);
        }
        Step::Continue
    }

    fn buffer_response(&self) -> Option<u64> {
        self.read_response.then_some(MOST_BODY)
    }

    fn response_buffered<'a>(
        &'a mut self,
        cx: &'a mut FilterCx,
        _: &'a mut ResponseHead,
        body: &'a mut Bytes,
    ) -> Step<'a> {
        if let Some(rules) = &self.config.response {
            read(
                rules,
                body,
                &Counters::response(self.config.stats.local()),
                &mut cx.info.metadata,
            );
        }
        Step::Continue
    }
}

/// Whether the body is to be read; if not, its rules have been applied.
fn begin(rules: &Rules, headers: &HeaderMap, end: bool, counters: &Counters<'_>, metadata: &mut Metadata) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes());
    if !rules.allow(content_type.unwrap_or_default()) {
        counters.mismatched.inc();
        apply_all(rules, |rule| rule.error.as_ref(), metadata);
        return false;
    }
    if end {
        counters.no_body.inc();
        apply_all(rules, |rule| rule.missing.as_ref(), metadata);
    }
    !end
}

/// Reads a body and applies the rules.
pub(super) fn read_into(rules: &Rules, body: &[u8], metadata: &mut Metadata) -> bool {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        apply_all(rules, |rule| rule.error.as_ref(), metadata);
        return false;
    };
    let mut found = Vec::new();
    for rule in &rules.rules {
        let missing = rule.missing.as_ref().map(|m| (m, m.value.clone()));
        let Some((assignment, value)) = outcome(rule, &json).unwrap_or(missing) else {
            continue;
        };
        // What this body has set does not count as there already.
        let kept = assignment.preserve
            && metadata
                .get(&assignment.namespace)
                .is_some_and(|n| n.fields.contains_key(&assignment.key));
        if let Some(value) = value.filter(|_| !kept) {
            found.push((assignment, value));
        }
    }
    for (assignment, value) in found {
        set(assignment, value, metadata);
    }
    true
}

fn read(rules: &Rules, body: &[u8], counters: &Counters<'_>, metadata: &mut Metadata) {
    if body.is_empty() {
        counters.no_body.inc();
        apply_all(rules, |rule| rule.missing.as_ref(), metadata);
    } else if read_into(rules, body, metadata) {
        counters.success.inc();
    } else {
        counters.invalid.inc();
    }
}

/// What is set when the value is there; the outer none when it is missing. As in Envoy, a configured value is set
/// wherever the value's parent is there, and a rule without `on_present` then sets nothing.
fn outcome<'r>(rule: &'r Rule, json: &serde_json::Value) -> Option<Option<(&'r Assignment, Option<Value>)>> {
    let (last, parents) = rule.path.split_last()?;
    let mut node = json;
    for key in parents {
        node = node.get(key).filter(|n| n.is_object())?;
    }
    let Some(present) = &rule.present else {
        return Some(None);
    };
    let value = match &present.value {
        Some(fixed) => Some(fixed.clone()),
        None => present.convert(node.get(last)?)?,
    };
    Some(Some((present, value)))
}

fn apply_all(rules: &Rules, of: impl Fn(&Rule) -> Option<&Assignment>, metadata: &mut Metadata) {
    for assignment in rules.rules.iter().filter_map(of) {
        if let Some(value) = &assignment.value {
            set(assignment, value.clone(), metadata);
        }
    }
}

fn set(assignment: &Assignment, value: Value, metadata: &mut Metadata) {
    let namespace = metadata.entry(assignment.namespace.clone()).or_default();
    namespace.fields.insert(assignment.key.clone(), value);
}
