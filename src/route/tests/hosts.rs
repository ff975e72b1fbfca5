//! Virtual hosts by domain.

use super::*;

fn hosts(extra: &str) -> Arc<RouteTable> {
    let vhost = |domain: &str| {
        format!(
            "- name: '{domain}'\n  domains: ['{domain}']\n  routes: [{{name: '{domain}', match: {{prefix: /}}, non_forwarding_action: {{}}}}]\n"
        )
    };
    let domains = [
        "*",
        "*.foo.com",
        "*-bar.foo.com",
        "a.foo.com",
        "a.*",
        "a.foo.*",
        "B.net:81",
        "[::1]:80",
    ];
    let vhosts: String = domains.into_iter().map(vhost).collect();
    build(&format!("name: t\n{extra}virtual_hosts:\n{vhosts}")).unwrap()
}

#[test]
fn exact_then_longest_suffix_then_longest_prefix() {
    let table = hosts("");
    for (host, expected) in [
        ("a.foo.com", "a.foo.com"),
        ("A.Foo.Com", "a.foo.com"),
        ("x.foo.com", "*.foo.com"),
        ("x-bar.foo.com", "*-bar.foo.com"),
        // A wildcard stands for at least one character.
        (".foo.com", "*"),
        ("-bar.foo.com", "*.foo.com"),
        ("a.foo.net", "a.foo.*"),
        ("a.net", "a.*"),
        // Exact and suffix go before prefix, though the prefix is longer.
        ("a.foo.x.foo.com", "*.foo.com"),
        ("other", "*"),
        ("b.NET:81", "B.net:81"),
        ("a.foo.com:80", "a.foo.*"),
        ("[::1]:80", "[::1]:80"),
    ] {
        assert_eq!(route_name(&table, &request(host, "/", &[])), expected, "{host}");
    }
}

#[test]
fn port_may_be_ignored() {
    let table = hosts("ignore_port_in_host_matching: true\n");
    for (host, expected) in [
        ("a.foo.com:8080", "a.foo.com"),
        ("b.net:81", "*"),
        ("x.foo.com:1", "*.foo.com"),
    ] {
        assert_eq!(route_name(&table, &request(host, "/", &[])), expected, "{host}");
    }
}

#[test]
fn a_host_nobody_has_is_no_virtual_host() {
    let table = build(
        "name: t\nvirtual_hosts: [{name: v, domains: [x], routes: [{name: r, match: {path: /a}, non_forwarding_action: {}}]}]",
    )
    .unwrap();
    assert_eq!(route_name(&table, &request("y", "/a", &[])), "no virtual host");
    assert_eq!(route_name(&table, &request("x", "/b", &[])), "no route");
    assert_eq!(route_name(&table, &request("x", "/a", &[])), "r");
}

#[test]
fn duplicate_domains_are_refused_in_envoys_words() {
    let two = |a: &str, b: &str| {
        let yaml = format!("name: rc\nvirtual_hosts: [{{name: a, domains: ['{a}']}}, {{name: b, domains: ['{b}']}}]");
        build(&yaml).unwrap_err().reason().to_owned()
    };
    assert_eq!(two("*", "*"), "Only a single wildcard domain is permitted in route rc");
    assert_eq!(
        two("Foo.com", "foo.com"),
        "Only unique values for domains are permitted. Duplicate entry of domain foo.com in route rc"
    );
    assert_eq!(
        two("*.foo.com", "*.foo.com"),
        "Only unique values for domains are permitted. Duplicate entry of domain *.foo.com in route rc"
    );
}

#[test]
fn another_header_may_choose_the_virtual_host() {
    let table = hosts("vhost_header: x-host\n");
    assert_eq!(
        route_name(&table, &request("zzz", "/", &[("x-host", "a.foo.com")])),
        "a.foo.com"
    );
}

#[test]
fn require_tls_redirects() {
    let table = |require: &str| {
        build(&format!(
            "name: t\nvirtual_hosts: [{{name: v, domains: ['*'], require_tls: {require}, routes: [{{name: r, match: {{prefix: /}}, non_forwarding_action: {{}}}}]}}]"
        ))
        .unwrap()
    };
    let redirected = |table: &Arc<RouteTable>, headers: &[(&str, &str)]| {
        let head = request("foo:80", "/a?b", headers);
        find(table, &head)
            .unwrap()
            .redirect_location(&head, &stream())
            .map(|l| l.to_str().unwrap().to_owned())
    };
    let all = table("ALL");
    assert_eq!(redirected(&all, &[]).as_deref(), Some("https://foo:80/a?b"));
    assert_eq!(redirected(&all, &[("x-forwarded-proto", "https")]), None);
    let external = table("EXTERNAL_ONLY");
    assert_eq!(redirected(&external, &[("x-envoy-internal", "true")]), None);
    assert!(redirected(&external, &[("x-forwarded-proto", "http")]).is_some());
}

#[test]
fn unknown_clusters_are_refused_where_they_are_checked() {
    let yaml = "name: t\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: here}}, {match: {prefix: /}, route: {cluster: gone}}]}]";
    let server = server();
    let with = |yaml: &str, check: bool| {
        let proto: RouteConfiguration = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
        let has = |name: &str| name == "here";
        RouteTable::build_with(proto, check, &has, &mut BuildCx::new(&server))
    };
    assert_eq!(with(yaml, true).unwrap_err().reason(), "route: unknown cluster 'gone'");
    assert!(with(yaml, false).is_ok());
    assert!(with(&format!("validate_clusters: false\n{yaml}"), true).is_ok());
}
