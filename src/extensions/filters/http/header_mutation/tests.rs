use xds_protos::load::{LoadOptions, Syntax, typed};

use super::{config::Mutations, query};
use crate::{
    config::{BuildCx, ConfigResult},
    route::test_support::{request, server, stream},
};

fn build(yaml: &str) -> ConfigResult<Mutations> {
    let server = server();
    let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Mutations::build(Some(proto), &mut BuildCx::new(&server))
}

fn mutated(yaml: &str, path: &str) -> String {
    let mutations = build(&format!("query_parameter_mutations: {yaml}")).unwrap();
    let mut head = request("h", path, &[("x-v", "a b")]);
    query::mutate(&mutations.query, &mut head, &stream());
    head.path().to_owned()
}

#[test]
fn parameters_are_sorted_and_decoded() {
    assert_eq!(mutated("[{remove: x}]", "/p?b=1&a=%21&x=2&a"), "/p?a=!&a=&b=1");
    assert_eq!(mutated("[{remove: x}]", "/p?x=1"), "/p");
}

#[test]
fn what_would_break_the_request_line_stays_encoded() {
    assert_eq!(
        mutated("[{remove: x}]", "/p?a=%20b%0d%0ac%23%7f%ff"),
        "/p?a=%20b%0d%0ac%23%7f%ff"
    );
    assert_eq!(mutated("[{remove: x}]", "/p?a=%20b%0d%23"), "/p?a=%20b%0D%23");
}

#[test]
fn added_values_are_encoded() {
    let yaml = "[{append: {record: {key: q, value: '%REQ(x-v)%&=~'}, action: OVERWRITE_IF_EXISTS_OR_ADD}}]";
    assert_eq!(mutated(yaml, "/p?q=1&q=2"), "/p?q=a%20b%26%3D%7E");
}

#[test]
fn refusals_name_the_field() {
    let path = |yaml: &str| build(yaml).unwrap_err().path().to_owned();
    assert_eq!(
        path("query_parameter_mutations: [{remove: a}, {append: {record: {key: a, value: 1}}}]"),
        "mutations.query_parameter_mutations[1].append.record.value"
    );
    assert_eq!(
        path("request_mutations: [{append: {header: {key: ':path', value: x}}}]"),
        "mutations.request_mutations[0].append.header.key"
    );
}
