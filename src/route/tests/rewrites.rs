//! Rewrites of path and host, and redirects.

use super::*;

fn rewritten(route: &str, head: &mut RequestHead) -> RouteMatch {
    let found = find(&table(route), head).unwrap();
    found.finalize_request_headers(head, &stream(), true);
    found
}

fn path_after(route: &str, path: &str) -> String {
    let mut head = request("h", path, &[]);
    rewritten(route, &mut head);
    assert_eq!(head.get_str("x-envoy-original-path"), Some(path), "{path}");
    head.path().to_owned()
}

#[test]
fn path_rewrites() {
    for (route, path, expected) in [
        (
            "- {match: {prefix: /pre/}, route: {cluster: c, prefix_rewrite: /new/}}",
            "/pre/x?a=b",
            "/new/x?a=b",
        ),
        (
            "- {match: {path: /exact}, route: {cluster: c, prefix_rewrite: /e2}}",
            "/exact?q",
            "/e2?q",
        ),
        (
            "- {match: {path_separated_prefix: /sep}, route: {cluster: c, prefix_rewrite: /s2}}",
            "/sep/a?b",
            "/s2/a?b",
        ),
        (
            "- {match: {prefix: /CI, case_sensitive: false}, route: {cluster: c, prefix_rewrite: /low}}",
            "/ci/X",
            "/low/X",
        ),
        (
            r"- {match: {safe_regex: {regex: '/rx/\d+'}}, route: {cluster: c, prefix_rewrite: /all}}",
            "/rx/12?z",
            "/all?z",
        ),
        (
            r"- {match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: '^/re/([^/]+)/(.*)$'}, substitution: '/\2/x/\1'}}}",
            "/re/a/b?c=d",
            "/b/x/a?c=d",
        ),
        (
            "- {match: {prefix: /}, route: {cluster: c, path_rewrite: '/v/%REQ(:method)%'}}",
            "/any?c=d",
            "/v/GET?c=d",
        ),
        (
            "- {match: {prefix: /}, route: {cluster: c, prefix_rewrite: 'v2'}}",
            "/any",
            "v2any",
        ),
    ] {
        assert_eq!(path_after(route, path), expected);
    }
}

/// A route that matches by a URI template and rewrites by another.
fn template(pattern: &str, rewrite: &str) -> String {
    let any = "'@type': type.googleapis.com/envoy.extensions.path";
    format!(
        "- match: {{path_match_policy: {{name: m, typed_config: {{{any}.match.uri_template.v3.UriTemplateMatchConfig, path_template: '{pattern}'}}}}}}
  route: {{cluster: c, path_rewrite_policy: {{name: r, typed_config: {{{any}.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: '{rewrite}'}}}}}}"
    )
}

#[test]
fn uri_templates() {
    for (pattern, rewrite, path, expected) in [
        ("/{one}/{two}", "/{two}/{one}", "/cat/dog?q", "/dog/cat?q"),
        (
            "/videos/{language=lang/*}/*",
            "/{language}",
            "/videos/lang/en/video.m4s",
            "/lang/en",
        ),
        (
            "/content/{format}/{lang}/{id}/{file}.vtt",
            "/{lang}/{format}/{file}.vtt",
            "/content/hls/en-us/12345/en_193913.vtt",
            "/en-us/hls/en_193913.vtt",
        ),
        ("/a/{rest=**}", "/{rest}", "/a/b/c", "/b/c"),
    ] {
        assert_eq!(path_after(&template(pattern, rewrite), path), expected);
    }
    let table = table(&template("/{one}/*.mpd", "/{one}"));
    assert!(find(&table, &request("h", "/a/b/c.mpd", &[])).is_none());
    assert!(find(&table, &request("h", "/a/c.mpd", &[])).is_some());
}

#[test]
fn original_path_is_left_out_on_request() {
    let mut head = request("h", "/a", &[]);
    let found = find(
        &table("- {match: {prefix: /a}, route: {cluster: c, prefix_rewrite: /b}}"),
        &head,
    )
    .unwrap();
    found.finalize_request_headers(&mut head, &stream(), false);
    assert_eq!((head.path(), head.headers.len()), ("/b", 0));
}

#[test]
fn host_rewrites() {
    let literal =
        "- {match: {prefix: /}, route: {cluster: c, host_rewrite_literal: lit, append_x_forwarded_host: true}}";
    let mut head = request("old:80", "/", &[]);
    rewritten(literal, &mut head);
    assert_eq!(head.host(), "lit");
    assert_eq!(head.get_str("x-envoy-original-host"), Some("old:80"));
    assert_eq!(head.get_str("x-forwarded-host"), Some("old:80"));

    // The old host is not appended again where it stands last.
    let mut head = request("old", "/", &[("x-forwarded-host", "a,old")]);
    rewritten(literal, &mut head);
    assert_eq!(head.get_str("x-forwarded-host"), Some("a,old"));
    let mut head = request("old", "/", &[("x-forwarded-host", "a,b")]);
    rewritten(literal, &mut head);
    assert_eq!(head.get_str("x-forwarded-host"), Some("a,b,old"));

    let header = "- {match: {prefix: /}, route: {cluster: c, host_rewrite_header: x-new}}";
    let mut head = request("old", "/", &[("x-new", "nh")]);
    rewritten(header, &mut head);
    assert_eq!((head.host(), head.get_str("x-forwarded-host")), ("nh", None));
    let mut head = request("old", "/", &[]);
    rewritten(header, &mut head);
    assert_eq!((head.host(), head.headers.len()), ("old", 0));

    let regex = r"- {match: {prefix: /}, route: {cluster: c, host_rewrite_path_regex: {pattern: {regex: '^/([^/]+)/.*$'}, substitution: '\1'}}}";
    let mut head = request("old", "/foo.com/x?y", &[]);
    rewritten(regex, &mut head);
    assert_eq!(head.host(), "foo.com");
}

#[test]
fn auto_host_rewrite_waits_for_the_upstream_host() {
    let route = "- {match: {prefix: /}, route: {cluster: c, auto_host_rewrite: true}}";
    let mut head = request("old", "/", &[]);
    let found = rewritten(route, &mut head);
    assert_eq!(head.host(), "old");
    found.rewrite_host(&mut head, "upstream.example", true);
    assert_eq!(head.host(), "upstream.example");
    assert_eq!(head.get_str("x-envoy-original-host"), Some("old"));
}

#[test]
fn redirects() {
    let location = |action: &str, host: &str, path: &str| {
        let table = table(&format!("- {{match: {{prefix: /redir}}, redirect: {{{action}}}}}"));
        let head = request(host, path, &[]);
        let found = find(&table, &head).unwrap();
        found
            .redirect_location(&head, &stream())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    for (action, host, path, expected) in [
        ("https_redirect: true", "h:81", "/redir?x=1", "https://h:81/redir?x=1"),
        ("https_redirect: true", "foo:80", "/redir", "https://foo/redir"),
        ("https_redirect: true", "[::1]:80", "/redir", "https://[::1]/redir"),
        (
            "host_redirect: new, port_redirect: 8443",
            "h:81",
            "/redir/a?b",
            "http://new:8443/redir/a?b",
        ),
        ("path_redirect: /p", "h", "/redir?x=1", "http://h/p?x=1"),
        ("path_redirect: '/p?own=1'", "h", "/redir?x=1", "http://h/p?own=1"),
        (
            "strip_query: true, prefix_rewrite: /q",
            "h",
            "/redir/a?x=1",
            "http://h/q/a",
        ),
        (
            r"regex_rewrite: {pattern: {regex: '/redir/(.*)'}, substitution: '/z/\1'}",
            "h",
            "/redir/a/b?x=1",
            "http://h/z/a/b?x=1",
        ),
        ("scheme_redirect: ftp", "h:80", "/redir", "ftp://h/redir"),
        ("port_redirect: 99", "h:81", "/redir", "http://h:99/redir"),
    ] {
        assert_eq!(location(action, host, path), expected);
    }
}
