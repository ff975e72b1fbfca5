//! Tables built from YAML and asked for routes. What is expected was observed on Envoy 1.40.

mod hosts;
mod index;
mod mutations;
mod policies;
mod rewrites;

use std::sync::Arc;

use http::{HeaderValue, Method};
use xds_protos::{
    envoy::config::route::v3::RouteConfiguration,
    load::{LoadOptions, Syntax, typed},
};

use super::{
    RouteMatch, RouteOutcome, RouteTable,
    test_support::{request, server, stream},
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::RequestHead,
};

fn build(yaml: &str) -> ConfigResult<Arc<RouteTable>> {
    let proto: RouteConfiguration = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    let server = server();
    RouteTable::build(proto, &mut BuildCx::new(&server))
}

/// A table with one virtual host for everything, whose routes are these (YAML list, not indented).
fn table(routes: &str) -> Arc<RouteTable> {
    let routes: String = routes.lines().map(|l| format!("  {l}\n")).collect();
    build(&format!(
        "name: t\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n{routes}"
    ))
    .unwrap()
}

fn find(table: &Arc<RouteTable>, head: &RequestHead) -> Option<RouteMatch> {
    table.find(head, &stream(), 0).matched()
}

/// The name of the route a request takes, or of nothing.
fn route_name(table: &Arc<RouteTable>, head: &RequestHead) -> String {
    match table.find(head, &stream(), 0) {
        RouteOutcome::NoVirtualHost => "no virtual host".to_owned(),
        RouteOutcome::NoRoute => "no route".to_owned(),
        RouteOutcome::Match(route) => route.name.to_string(),
    }
}
