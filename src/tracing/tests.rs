use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use super::*;
use crate::{
    formatter::FormatCx,
    route::test_support::{request, server, stream},
};
use xds_protos::{
    envoy::r#type::tracing::v3::CustomTag as TagProto,
    load::{LoadOptions, Syntax, typed},
};

/// Keeps what is reported.
#[derive(Default)]
struct Kept(Mutex<Vec<SpanData>>);

impl Tracer for Arc<Kept> {
    fn start(&self, root: &Root<'_>) -> Option<SpanData> {
        let context = Context {
            trace_id: 7,
            span_id: 1,
            sampled: root.traced,
            ..Context::default()
        };
        Some(SpanData::new(context, "root", Kind::Server, root.start))
    }

    fn child(&self, parent: &Context, name: &str, _: Relation) -> SpanData {
        let context = Context {
            parent: Some(parent.span_id),
            span_id: parent.span_id + 1,
            ..parent.clone()
        };
        SpanData::new(context, name, Kind::Client, SystemTime::now())
    }

    fn inject(&self, span: &Context, headers: &mut HeaderMap) {
        headers.insert("x-span", span.span_id.into());
    }

    fn report(&self, span: SpanData, _: usize) {
        self.0.lock().unwrap().push(span);
    }

    fn trace_id(&self, span: &Context) -> String {
        span.trace_id.to_string()
    }

    fn span_id(&self, _: &Context) -> Option<String> {
        None
    }
}

fn span(kept: &Arc<Kept>, traced: bool) -> Span {
    let config = Config {
        tracer: Some(Arc::new(kept.clone())),
        spawn_upstream_span: false,
        verbose: false,
        max_path_tag_length: 5,
        custom_tags: Vec::new(),
        operation: None,
        upstream_operation: None,
        no_context_propagation: false,
        node_id: String::new(),
        zone: String::new(),
    };
    let head = request("h", "/", &[]);
    let relation = config.relation(Direction::Ingress);
    let root = Root {
        head: &head,
        start: SystemTime::now(),
        traced,
        relation,
    };
    Span::start(&Arc::new(config), 0, &root).unwrap()
}

#[test]
fn a_span_is_reported_once_with_its_last_tags() {
    let kept = Arc::new(Kept::default());
    let span = span(&kept, true);
    span.set_tag("a", "1");
    span.set_tag("a", "2");
    let call = CallSpan::grpc(Some(&span), "p.S.M", "c", "authority");
    call.grpc_status(14);
    drop(call);
    span.finish();
    span.set_tag("a", "3");
    span.finish();
    let spans = kept.0.lock().unwrap();
    let [call, root] = spans.as_slice() else {
        panic!("{}", spans.len())
    };
    assert_eq!(root.tags, [("a".into(), "2".to_owned())]);
    assert_eq!(
        (call.name.as_str(), call.context.parent),
        ("async p.S.M egress", Some(1))
    );
    assert!(call.tags.contains(&("error".into(), "true".to_owned())));
}

#[test]
fn what_is_not_sampled_is_told_and_not_reported() {
    let kept = Arc::new(Kept::default());
    let span = span(&kept, false);
    let mut headers = HeaderMap::new();
    span.inject(&mut headers);
    assert_eq!(headers["x-span"], "1");
    span.child("c", span.config().relation(Direction::Ingress)).finish();
    span.finish();
    assert!(kept.0.lock().unwrap().is_empty());
}

#[test]
fn tags_of_a_request() {
    let kept = Arc::new(Kept::default());
    let span = span(&kept, true);
    let head = request(
        "h.test",
        "/long/path",
        &[("x-forwarded-proto", "https"), ("user-agent", "ua")],
    );
    tags::of_request(&span, Some(&head), None, &stream());
    span.finish();
    let spans = kept.0.lock().unwrap();
    let tag = |name: &str| spans[0].tags.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(tag("http.url"), Some("https://h.test/long"));
    assert_eq!(tag("http.status_code"), Some("0"));
    assert_eq!(tag("error"), Some("true"));
    assert_eq!(tag("downstream_cluster"), Some("-"));
    assert_eq!(tag("upstream_cluster"), None);
}

#[test]
fn custom_tags_of_a_route_come_first() {
    let server = server();
    let tag = |yaml: &str| {
        let proto: TagProto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
        CustomTag::build(proto, &mut BuildCx::new(&server)).unwrap()
    };
    let manager = [
        tag("{tag: a, literal: {value: m}}"),
        tag("{tag: b, request_header: {name: X-H, default_value: d}}"),
        tag("{tag: c, value: '%REQ(x-none)%'}"),
    ];
    let route = [tag("{tag: a, request_header: {name: x-none}}")];
    let head = request("h", "/", &[("x-h", "v")]);
    let info = stream();
    let cx = FormatCx {
        request: Some(&head),
        response: None,
        info: &info,
    };
    let values = custom_tags(&manager, &route, &cx);
    assert_eq!(values, [("b".to_owned(), "v".to_owned())]);
}
