//! The handlers of resource types that are not clusters and listeners.

use std::{fs, path::Path};

use xds_protos::envoy::extensions::filters::http::{buffer::v3::Buffer, router::v3::Router};

use super::*;
use crate::{
    config::{BuildCx, InitTarget, unpack},
    xds::resources::{ecds::ExtensionConfigs, rds::RouteConfigs, rtds, srds::ScopeSlot},
};

fn started() -> Rc<Worker> {
    let worker = proxy("node: { id: me, cluster: here }");
    worker.server.xds.start();
    worker
}

fn file(directory: &Path, name: &str, resources: &str) -> ConfigSource {
    let path = directory.join(name);
    replace(directory, name, "1", resources);
    source(&format!("{{ path_config_source: {{ path: '{}' }} }}", path.display()))
}

fn replace(directory: &Path, name: &str, version: &str, resources: &str) {
    let next = directory.join("next");
    fs::write(&next, format!("version_info: '{version}'\nresources:\n{resources}")).unwrap();
    fs::rename(next, directory.join(name)).unwrap();
}

async fn ready(mut target: InitTarget) {
    target.ready.wait_for(|ready| *ready).await.unwrap();
}

fn routes(name: &str, status: u32) -> String {
    format!(
        "- '@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: {name}\n  virtual_hosts: \
         [{{ name: v, domains: ['*'], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: {status} }} }}] }}]\n"
    )
}

#[test]
fn listeners_that_name_the_same_routes_share_a_slot() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let source = file(dir.path(), "rds.yaml", &routes("r", 200));
        let proxy = started();
        let mut cx = BuildCx::new(&proxy.server);
        let slot = RouteConfigs::subscribe("r", &source, "http.a.", &mut cx).unwrap();
        let again = RouteConfigs::subscribe("r", &source, "http.b.", &mut cx).unwrap();
        assert!(Arc::ptr_eq(&slot, &again));
        assert!(slot.load().is_none());
        for target in cx.init {
            ready(target).await;
        }
        let first = slot.load().unwrap();
        let stats = &proxy.server.stats;
        assert_eq!(stats.counter_value("http.a.rds.r.config_reload"), Some(1));
        assert_eq!(stats.counter_value("http.a.rds.r.update_success"), Some(1));
        assert_eq!(proxy.server.xds.routes.applied()[0].version, "1");

        // Another name is refused; the table stays.
        replace(dir.path(), "rds.yaml", "2", &routes("other", 200));
        while stats.counter_value("http.a.rds.r.update_rejected") != Some(1) {
            tokio::task::yield_now().await;
        }
        assert!(Arc::ptr_eq(&first, &slot.load().unwrap()));
    });
}

#[test]
fn an_extension_is_built_from_what_came_and_kept_when_a_later_one_is_bad() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let config = |name: &str, inner: &str| {
            format!(
                "- '@type': type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig\n  name: {name}\n  \
                 typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.http.{inner} }}\n"
            )
        };
        let buffer = |n: u32| config("f", &format!("buffer.v3.Buffer, max_request_bytes: {n}"));
        let discovered = xds_protos::envoy::config::core::v3::ExtensionConfigSource {
            config_source: Some(file(dir.path(), "ecds.yaml", &buffer(5))),
            type_urls: vec![xds_protos::type_url::<Buffer>()],
            ..Default::default()
        };
        let proxy = started();
        let mut cx = BuildCx::new(&proxy.server);
        let slot = ExtensionConfigs::subscribe("http_filter", "f", discovered.clone(), &mut cx, |any, cx| {
            Ok(unpack::<Buffer>(any, cx)?.max_request_bytes.unwrap_or_default().value)
        })
        .unwrap();
        ready(cx.init.remove(0)).await;
        assert_eq!(slot.load().as_deref(), Some(&5));

        let stat = |name: &str| {
            let name = format!("extension_config_discovery.http_filter.f.{name}");
            proxy.server.stats.counter_value(&name).unwrap()
        };
        replace(dir.path(), "ecds.yaml", "2", &config("f", "router.v3.Router"));
        while stat("config_fail") == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(slot.load().as_deref(), Some(&5));
        assert_eq!((stat("update_rejected"), stat("config_reload")), (1, 1));
        let type_url = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
        let refused = proxy
            .server
            .xds
            .inventory
            .resource(type_url, "f")
            .unwrap()
            .error
            .unwrap();
        assert!(
            refused
                .details
                .contains("but expect envoy.extensions.filters.http.buffer.v3.Buffer")
        );

        // A default of a type that the chain does not take is refused with the chain.
        let wrong = xds_protos::envoy::config::core::v3::ExtensionConfigSource {
            default_config: Some(xds_protos::any::pack(&Router::default())),
            ..discovered
        };
        let refused = ExtensionConfigs::subscribe("http_filter", "g", wrong, &mut cx, |_, _| Ok(()));
        assert_eq!(refused.err().unwrap().path(), "default_config");
    });
}

#[test]
fn a_runtime_layer_follows_its_file() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let layer = |value: u32| {
            format!(
                "- {{ '@type': type.googleapis.com/envoy.service.runtime.v3.Runtime, name: r, layer: {{ a: {value} }} }}"
            )
        };
        file(dir.path(), "rtds.yaml", &layer(5));
        let proxy = proxy(&format!(
            "layered_runtime: {{ layers: [{{ name: l, rtds_layer: {{ name: r, rtds_config: \
             {{ path_config_source: {{ path: '{}' }} }} }} }}] }}",
            dir.path().join("rtds.yaml").display()
        ));
        let server = &proxy.server;
        server.xds.start();
        let key = server.runtime.key("a");
        let layers = server.bootstrap.layered_runtime.iter().flat_map(|r| &r.layers);
        let (_guard, target) = rtds::subscribe(layers, server).remove(0);
        ready(target).await;
        assert_eq!(key.integer(0), 5);
        replace(dir.path(), "rtds.yaml", "2", &layer(6));
        while key.integer(0) != 6 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn two_scopes_of_one_key_are_refused_together() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let scope = |name: &str, key: &str| {
            format!(
                "- {{ '@type': type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration, name: {name}, \
                 route_configuration_name: r, key: {{ fragments: [{{ string_key: {key} }}] }} }}\n"
            )
        };
        let rds = file(dir.path(), "rds.yaml", &routes("r", 200));
        let scopes = file(dir.path(), "srds.yaml", &(scope("s1", "x") + &scope("s2", "x")));
        let scoped = xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::ScopedRds {
            scoped_rds_config_source: Some(scopes),
            ..Default::default()
        };
        let proxy = started();
        let mut cx = BuildCx::new(&proxy.server);
        let slot = ScopeSlot::subscribe("sc", scoped, &rds, "http.a.", &mut cx).unwrap();
        ready(cx.init.remove(0)).await;
        assert!(slot.find(&vec!["x".to_owned()]).is_none());
        let type_url = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
        let refused = proxy
            .server
            .xds
            .inventory
            .resource(type_url, "s2")
            .unwrap()
            .error
            .unwrap();
        assert_eq!(
            refused.details,
            "scope key conflict found, first scope is s1, second scope is s2"
        );
    });
}
