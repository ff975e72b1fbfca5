//! The index against a plain loop, and route matching.

use proptest::prelude::*;

use super::*;

#[test]
fn path_specifiers() {
    let table = table(
        "- {name: exact, match: {path: /exact}, non_forwarding_action: {}}
- {name: separated, match: {path_separated_prefix: /sep}, non_forwarding_action: {}}
- {name: regex, match: {safe_regex: {regex: '/r/[a-z]+'}}, non_forwarding_action: {}}
- {name: folded, match: {path: /Folded, case_sensitive: false}, non_forwarding_action: {}}
- {name: connect, match: {connect_matcher: {}}, non_forwarding_action: {}}
- {name: prefix, match: {prefix: /pre}, non_forwarding_action: {}}",
    );
    for (path, expected) in [
        ("/exact?q", "exact"),
        ("/exact/", "no route"),
        ("/sep", "separated"),
        ("/sep/x", "separated"),
        ("/sepx", "no route"),
        ("/r/abc?1", "regex"),
        ("/r/abc1", "no route"),
        ("/fOLDED", "folded"),
        ("/prefix", "prefix"),
        ("/Prefix", "no route"),
    ] {
        assert_eq!(route_name(&table, &request("h", path, &[])), expected, "{path}");
    }
    let mut connect = request("h:443", "/", &[]);
    connect.method = Method::CONNECT;
    connect.path = None;
    assert_eq!(route_name(&table, &connect), "connect");
}

#[test]
fn everything_in_a_match_must_hold() {
    let table = table(
        "- {name: grpc, match: {prefix: /, grpc: {}}, non_forwarding_action: {}}
- {name: query, match: {prefix: /, query_parameters: [{name: x, string_match: {exact: a%20b}}]}, non_forwarding_action: {}}
- {name: cookie, match: {prefix: /, cookies: [{name: c, string_match: {exact: v}}]}, non_forwarding_action: {}}
- {name: tls, match: {prefix: /, tls_context: {presented: true}}, non_forwarding_action: {}}
- {name: headers, match: {prefix: /, headers: [{name: a, present_match: true}, {name: b, string_match: {prefix: z}}]}, non_forwarding_action: {}}
- {name: half, match: {prefix: /, runtime_fraction: {default_value: {numerator: 50}}}, non_forwarding_action: {}}
- {name: rest, match: {prefix: /}, non_forwarding_action: {}}",
    );
    let at = |random: u64, path: &str, headers: &[(&str, &str)]| {
        table
            .find(&request("h", path, headers), &stream(), random)
            .matched()
            .unwrap()
            .name
            .to_string()
    };
    assert_eq!(at(0, "/", &[("content-type", "application/grpc+proto")]), "grpc");
    assert_eq!(at(0, "/?y=1&x=a%20b", &[]), "query");
    assert_eq!(at(0, "/", &[("cookie", "a=b; c=\"v\"")]), "cookie");
    assert_eq!(at(0, "/", &[("a", ""), ("b", "zz")]), "headers");
    assert_eq!(at(149, "/", &[("b", "zz")]), "half");
    assert_eq!(at(150, "/", &[("b", "zz")]), "rest");
}

#[test]
fn path_parameters_may_be_ignored() {
    let table = build(
        "name: t\nignore_path_parameters_in_path_matching: true\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{name: r, match: {path: /a}, non_forwarding_action: {}}]}]",
    )
    .unwrap();
    for (path, expected) in [
        ("/a;p=1?q", "r"),
        ("/a;", "r"),
        ("/;x/a", "no route"),
        ("/a;x/", "no route"),
    ] {
        assert_eq!(route_name(&table, &request("h", path, &[])), expected, "{path}");
    }
}

/// Some route's match, as YAML, over a small alphabet so that routes overlap.
fn matches() -> impl Strategy<Value = String> {
    let path = "(/[ab]{0,2}){1,3}";
    prop_oneof![
        path.prop_map(|p| format!("path: {p}")),
        path.prop_map(|p| format!("prefix: {p}")),
        "(/[ab]{1,2}){1,2}".prop_map(|p| format!("path_separated_prefix: {p}")),
        path.prop_map(|p| format!("path: {p}, case_sensitive: false")),
        path.prop_map(|p| format!("prefix: {p}, case_sensitive: false")),
        Just("prefix: ''".to_owned()),
        path.prop_map(|p| format!("safe_regex: {{regex: '{p}.*'}}")),
        path.prop_map(|p| format!("prefix: {p}, headers: [{{name: x, present_match: true}}]")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn the_index_finds_what_a_loop_finds(
        routes in proptest::collection::vec(matches(), 16..60),
        paths in proptest::collection::vec("(/[abA]{0,2}){1,4}(\\?q)?", 1..20),
        with_header: bool,
    ) {
        let yaml: String = routes
            .iter()
            .enumerate()
            .map(|(i, m)| format!("- {{name: r{i}, match: {{{m}}}, non_forwarding_action: {{}}}}\n"))
            .collect();
        let table = table(yaml.trim_end());
        let info = stream();
        for path in &paths {
            let headers: &[(&str, &str)] = if with_header { &[("x", "1")] } else { &[] };
            let head = request("h", path, headers);
            let linear = table.virtual_hosts()[0]
                .routes()
                .iter()
                .find(|r| r.matcher.matches(&head, &info, 0, false))
                .map_or("no route".to_owned(), |r| r.name.to_string());
            prop_assert_eq!(route_name(&table, &head), linear, "{}", path);
        }
    }
}
