use xds_protos::{
    envoy::extensions::filters::http::api_key_auth::v3::KeySource,
    load::{LoadOptions, Syntax, typed},
};

use super::source::Source;
use crate::{
    config::BuildCx,
    route::test_support::{request, server},
};

fn source(yaml: &str) -> Source {
    let server = server();
    let proto: KeySource = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Source::build(proto, &mut BuildCx::new(&server)).unwrap()
}

#[test]
fn a_key_is_found_and_taken_out() {
    let mut head = request(
        "h",
        "/p?a=1&key=q&b",
        &[
            ("authorization", "Bearer h"),
            ("cookie", "x=1; key=c"),
            ("cookie", "y=2"),
        ],
    );
    let sources = [
        source("header: Authorization"),
        source("query: key"),
        source("cookie: key"),
    ];
    assert_eq!(
        sources.each_ref().map(|s| s.key(&head).map(str::to_owned)),
        ["h", "q", "c"].map(|key| Some(key.to_owned()))
    );
    sources.iter().for_each(|s| s.remove(&mut head));
    assert_eq!(head.path(), "/p?a=1&b=");
    let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["x=1", "y=2"]);
    assert!(sources.iter().all(|s| s.key(&head).is_none()));
}

#[test]
fn nothing_is_left_of_a_lonely_key() {
    let mut head = request("h", "/p?key=q", &[("cookie", "key=c")]);
    source("query: key").remove(&mut head);
    source("cookie: key").remove(&mut head);
    assert_eq!(head.path(), "/p");
    assert!(!head.headers.contains_key("cookie"));
}
