use xds_protos::load::{LoadOptions, Syntax, typed};

use super::*;
use crate::{
    route::test_support::{request, server},
    tracing::tags,
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracer(yaml: &str) -> ConfigResult<Arc<dyn Tracer>> {
    let yaml = yaml.replacen('{', "{grpc_service: {envoy_grpc: {cluster_name: c}}, ", 1);
    let proto: Proto = typed(&yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Factory.build(proto, &mut BuildCx::new(&server()))
}

fn start(tracer: &dyn Tracer, headers: &[(&str, &str)], traced: bool) -> Option<SpanData> {
    let head = request("h", "/", headers);
    tracer.start(&Root {
        head: &head,
        start: std::time::SystemTime::now(),
        traced,
        relation: Relation {
            direction: Direction::Ingress,
            independent: false,
        },
    })
}

#[test]
fn the_parent_decides_and_is_told_of() {
    let tracer = tracer("{}").unwrap();
    let span = start(&*tracer, &[("traceparent", PARENT), ("tracestate", "k=v")], true).unwrap();
    assert!(span.context.sampled && span.context.remote);
    assert_eq!(span.context.parent, Some(0xb7ad_6b71_6920_3331));
    let mut headers = HeaderMap::new();
    tracer.inject(&span.context, &mut headers);
    let text = headers["traceparent"].to_str().unwrap();
    assert!(
        text.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && text.ends_with("-01"),
        "{text}"
    );
    assert_eq!(headers["tracestate"], "k=v");
    for bad in [
        "00-xyz",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        &PARENT[1..],
    ] {
        assert!(start(&*tracer, &[("traceparent", bad)], true).is_none(), "{bad}");
    }
}

#[test]
fn samplers() {
    let with = |sampler: &str| {
        let name = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3";
        tracer(&format!(
            "{{sampler: {{name: s, typed_config: {}}}}}",
            sampler.replace("NAME", name)
        ))
        .unwrap()
    };
    let not = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let sampled = |tracer: &dyn Tracer, parent: Option<&str>, traced| {
        let headers: Vec<_> = parent.map(|p| ("traceparent", p)).into_iter().collect();
        start(tracer, &headers, traced).unwrap().context.sampled
    };
    let on = with("{'@type': NAME.AlwaysOnSamplerConfig}");
    assert!(sampled(&*on, Some(not), true) && sampled(&*on, None, true) && !sampled(&*on, None, false));
    let none = with("{'@type': NAME.TraceIdRatioBasedSamplerConfig, sampling_percentage: {numerator: 0}}");
    assert!(!sampled(&*none, Some(PARENT), true));
    let parent = with(
        "{'@type': NAME.ParentBasedSamplerConfig, wrapped_sampler: {name: w, typed_config: {'@type': NAME.AlwaysOnSamplerConfig}}}",
    );
    assert!(!sampled(&*parent, Some(not), true) && sampled(&*parent, Some(PARENT), true));
    assert!(sampled(&*parent, None, true));
    let error = tracer("{sampler: {name: s, typed_config: {'@type': type.googleapis.com/envoy.config.core.v3.Node}}}");
    assert_eq!(error.err().unwrap().reason(), "Sampler factory not found: 's'");
}

#[test]
fn the_status_is_an_error_where_the_conventions_say_so() {
    let status = |kind, tag: &'static str, value: &str| {
        let mut span = SpanData::new(Context::default(), "s", kind, std::time::SystemTime::now());
        span.tags.push((tag.into(), value.to_owned()));
        export::of(span).status.map(|s| s.code)
    };
    assert_eq!(status(Kind::Server, tags::HTTP_STATUS, "404"), None);
    assert_eq!(status(Kind::Client, tags::HTTP_STATUS, "404"), Some(2));
    assert_eq!(status(Kind::Server, tags::HTTP_STATUS, "503"), Some(2));
    assert_eq!(status(Kind::Server, tags::GRPC_STATUS, "5"), Some(0));
    assert_eq!(status(Kind::Client, tags::GRPC_STATUS, "5"), Some(2));
}
