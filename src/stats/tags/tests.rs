//! The names and tags are what Envoy 1.40 makes of the same names.

use super::*;

fn extracted(extractors: &Extractors, name: &str) -> (String, String) {
    let Extracted { name, tags } = extractors.extract(name);
    let tags: Vec<_> = tags.iter().map(|tag| format!("{}={}", tag.name, tag.value)).collect();
    (name, tags.join(" "))
}

#[test]
fn default_tags() {
    let extractors = Extractors::default();
    for (name, rest, tags) in [
        ("server.live", "server.live", ""),
        (
            "cluster.be.upstream_cx_total",
            "cluster.upstream_cx_total",
            "envoy.cluster_name=be",
        ),
        (
            "cluster.a.b.upstream_cx_total",
            "cluster.b.upstream_cx_total",
            "envoy.cluster_name=a",
        ),
        (
            "cluster.be.upstream_rq_2xx",
            "cluster.upstream_rq_xx",
            "envoy.response_code_class=2 envoy.cluster_name=be",
        ),
        (
            "cluster.be.upstream_rq_200",
            "cluster.upstream_rq",
            "envoy.response_code=200 envoy.cluster_name=be",
        ),
        (
            "cluster.be.grpc.svc.method.success",
            "cluster.grpc.success",
            "envoy.grpc_bridge_method=method envoy.grpc_bridge_service=svc envoy.cluster_name=be",
        ),
        (
            "listener.127.0.0.1_80.worker_1.downstream_cx_total",
            "listener.worker_downstream_cx_total",
            "envoy.worker_id=1 envoy.listener_address=127.0.0.1_80",
        ),
        (
            "listener.[__1]_80.http.in.downstream_rq_5xx",
            "listener.http.downstream_rq_xx",
            "envoy.response_code_class=5 envoy.http_conn_manager_prefix=in envoy.listener_address=[__1]_80",
        ),
        (
            "listener.admin.downstream_cx_total",
            "listener.admin.downstream_cx_total",
            "",
        ),
        (
            "listener.l.ssl.ciphers.AES-256",
            "listener.ssl.ciphers",
            "envoy.ssl_cipher=AES-256 envoy.listener_address=l",
        ),
        (
            "http.in.rbac.r.policy.p q.allowed",
            "http.rbac.policy.allowed",
            "envoy.rbac_policy_name=p q envoy.rbac_http_prefix=r envoy.http_conn_manager_prefix=in",
        ),
        (
            "http.in.rds.a/b.c.update_success",
            "http.rds.update_success",
            "envoy.rds_route_config=a/b.c envoy.http_conn_manager_prefix=in",
        ),
        (
            "vhost.v.vcluster.c.upstream_rq_total",
            "vhost.vcluster.upstream_rq_total",
            "envoy.virtual_cluster=c envoy.virtual_host=v",
        ),
        (
            "x.http_local_rate_limit.ok",
            "http_local_rate_limit.ok",
            "envoy.local_http_ratelimit_prefix=x",
        ),
        (
            "tcp.t.downstream_cx_total",
            "tcp.downstream_cx_total",
            "envoy.tcp_prefix=t",
        ),
        (
            "mongo.m.collection.c.query.total",
            "mongo.collection.query.total",
            "envoy.mongo_collection=c envoy.mongo_prefix=m",
        ),
    ] {
        assert_eq!(
            extracted(&extractors, name),
            (rest.to_owned(), tags.to_owned()),
            "{name}"
        );
    }
}

/// Extraction by scope must never differ from extraction by full name.
#[test]
fn scopes_agree_with_names() {
    let extractors = Extractors::default();
    let prefixes = [
        "",
        "server.",
        "cluster.be.",
        "cluster.a.b.",
        "cluster.be.grpc.svc.",
        "listener.0.0.0.0_80.",
        "listener.admin.",
        "http.in.",
        "http.in.rbac.",
        "vhost.v.",
        "vhost.v.route.r.",
        "tcp.t.",
        "proxy_proto.",
        "proxy_proto.p.",
        "sds.s.",
        "x.http_local_rate_limit.",
        "cluster.be.ssl.",
        "listener.l.http.in.",
        "mongo.m.",
        "auth.clientssl.c.",
    ];
    let fields = [
        "total",
        "upstream_rq_200",
        "upstream_rq_2xx",
        "ssl.ciphers.AES",
        "ciphers.AES",
        "grpc.svc.m.ok",
        "worker_0.x",
        "rbac.allowed",
        "rbac.p.denied",
        "policy.q.allowed",
        "versions.v1.found",
        "rds.r.update",
        "collection.c.query.q",
    ];
    for prefix in prefixes {
        for field in fields {
            let full = extractors.extract(&format!("{prefix}{field}"));
            if let Some(common) = ScopeTags::new(&extractors, prefix).common
                && let FieldTags::Own(own) = extractors.classify(field)
            {
                let by_scope = Extracted {
                    name: common.name + &own.name,
                    tags: [own.tags, common.tags].concat(),
                };
                assert_eq!(by_scope, full, "{prefix} {field}");
            }
        }
    }
}

#[test]
fn patterns_of_the_user() {
    let user = [
        Extractor::regex("cluster_name", r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)").unwrap(),
        Extractor::regex(
            "prefix",
            r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
        )
        .unwrap(),
        Extractor::regex("reporter", r"(reporter=\.=(.*?);\.;)").unwrap(),
        Extractor::fixed("zone", "z1"),
    ];
    let extractors = Extractors::new(user.to_vec());
    assert_eq!(
        extracted(
            &extractors,
            "cluster.outbound|80||a.ns.svc.cluster.local.upstream_cx_total"
        ),
        (
            "cluster.upstream_cx_total".into(),
            "zone=z1 cluster_name=outbound|80||a.ns.svc.cluster.local".into()
        )
    );
    assert_eq!(
        extracted(&extractors, "listener.0.0.0.0_80.http.0.0.0.0_80.downstream_rq_total"),
        (
            "listener.0.0.0.0_80.http.downstream_rq_total".into(),
            "zone=z1 prefix=0.0.0.0_80".into()
        )
    );
    assert_eq!(
        extracted(&extractors, "reporter=.=source;.;istio_requests_total"),
        ("istio_requests_total".into(), "reporter=source zone=z1".into())
    );
    assert!(Extractor::regex("x", "(").is_err());
}

#[test]
fn the_first_of_several_extractors_of_a_tag_counts() {
    let both = [
        Extractor::regex("t", r"^a\.((\w+)\.)").unwrap(),
        Extractor::regex("t", r"\.(b\.)").unwrap(),
    ];
    let expected = ("a.b.c".to_owned(), "t=x".to_owned());
    assert_eq!(extracted(&Extractors::new(both.to_vec()), "a.x.b.c").1, "t=b.");
    let first = [
        Extractor::regex("t", r"(?:^a)\.((\w+)\.)").unwrap(),
        Extractor::regex("t", r"\.(b\.)").unwrap(),
    ];
    assert_eq!(extracted(&Extractors::new(first.to_vec()), "a.x.b.c"), expected);
}
