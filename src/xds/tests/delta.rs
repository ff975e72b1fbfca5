//! Delta over the aggregated stream.

use xds_protos::envoy::service::discovery::v3::Resource as Wrapper;

use super::*;
use crate::http::filter::OnDemandRoutes;

fn response(type_url: &str, nonce: &str, added: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    let make = if type_url == clusters() { cluster } else { assignment };
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        system_version_info: format!("s-{nonce}"),
        resources: added
            .iter()
            .map(|(name, version)| Wrapper {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                resource: Some(make(name)),
                ..Wrapper::default()
            })
            .collect(),
        removed_resources: removed.iter().map(|n| (*n).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn versions(request: &DeltaDiscoveryRequest) -> Vec<(&str, &str)> {
    let mut all: Vec<_> = request
        .initial_resource_versions
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn a_new_stream_is_told_what_is_held() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "DELTA_GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);
        let mut stream = plane.delta.recv().await.unwrap();
        let first = stream.request().await;
        assert_eq!(
            first.resource_names_subscribe,
            Vec::<String>::new(),
            "the older form of the wildcard"
        );
        assert!(first.node.is_some() && first.initial_resource_versions.is_empty());

        stream.respond(response(
            &clusters(),
            "n1",
            &[("a", "1"), ("bad", "1"), ("b", "7")],
            &[],
        ));
        let told = watched.next().await;
        assert_eq!(told, update("s-n1", &[("a", "1"), ("bad", "1"), ("b", "7")], &[]));
        let nack = stream.request().await;
        assert_eq!(nack.response_nonce, "n1");
        let detail = nack.error_detail.unwrap();
        assert_eq!(
            (detail.code, detail.message.as_str()),
            (13, "Error adding/updating cluster(s) bad: it is bad")
        );

        stream.respond(response(&clusters(), "n2", &[("a", "2")], &["b"]));
        assert_eq!(watched.next().await, update("s-n2", &[("a", "2")], &["b"]));
        let ack = stream.request().await;
        assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n2", None));
        stream.end(Status::unavailable("restarting"));

        let mut stream = plane.delta.recv().await.unwrap();
        let first = stream.request().await;
        assert_eq!(versions(&first), [("a", "2")]);
        assert_eq!(first.response_nonce, "");
    });
}

#[test]
fn a_name_said_twice_is_refused_in_envoys_words() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "DELTA_GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);
        let mut stream = plane.delta.recv().await.unwrap();
        stream.request().await;
        stream.respond(response(&clusters(), "n1", &[("a", "1"), ("a", "2")], &[]));
        let nack = stream.request().await;
        let text = "duplicate name a found among added/updated resources";
        assert_eq!(nack.error_detail.unwrap().message, text);
        assert_eq!(
            watched.next().await,
            Told::Failed(FetchFailure::Rejected(text.to_owned()))
        );
        stream.respond(response(&clusters(), "n2", &[("a", "1")], &["a"]));
        let nack = stream.request().await;
        let text = "duplicate name a found in the union of added+removed resources";
        assert_eq!(nack.error_detail.unwrap().message, text);
    });
}

#[test]
fn names_are_subscribed_and_unsubscribed_as_watches_come_and_go() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "AGGREGATED_DELTA_GRPC");
        let a = watch(&proxy, &endpoints(), &ads(), one("a"));
        let mut b = watch(&proxy, &endpoints(), &ads(), one("b"));
        let mut stream = plane.delta.recv().await.unwrap();
        assert_eq!(stream.request().await.resource_names_subscribe, ["a", "b"]);
        stream.respond(response(&endpoints(), "n1", &[("a", "1"), ("b", "1")], &[]));
        stream.request().await;

        let c = watch(&proxy, &endpoints(), &ads(), one("c"));
        drop(a.guard);
        let request = stream.request().await;
        assert_eq!(request.resource_names_subscribe, ["c"]);
        assert_eq!(request.resource_names_unsubscribe, ["a"]);
        assert_eq!(b.next().await, update("s-n1", &[("b", "1")], &[]));

        // Gone, but still wanted: the next stream asks for it without a version.
        stream.respond(response(&endpoints(), "n2", &[("c", "1")], &["b"]));
        assert_eq!(b.next().await, update("s-n2", &[], &["b"]));
        stream.request().await;
        stream.end(Status::unavailable("restarting"));
        let mut stream = plane.delta.recv().await.unwrap();
        let first = stream.request().await;
        assert_eq!(first.resource_names_subscribe, ["b", "c"]);
        assert_eq!(versions(&first), [("c", "1")]);
        drop(c);
    });
}

#[test]
fn virtual_hosts_come_on_their_own_and_on_demand() {
    run(async {
        use xds_protos::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
        let type_url = xds_protos::type_url::<VirtualHost>();
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "DELTA_GRPC");
        let mut cx = crate::config::BuildCx::new(&proxy.server);
        let slot = rds::RouteConfigs::subscribe("r", &ads(), "http.a.", &mut cx).unwrap();
        let mut stream = plane.delta.recv().await.unwrap();
        assert_eq!(stream.request().await.resource_names_subscribe, ["r"]);
        let routes = typed::<RouteConfiguration>(
            "{ name: r, vhds: { config_source: { ads: {} } } }",
            Syntax::Yaml,
            &LoadOptions::default(),
        )
        .unwrap();
        let answer = |resource: Any, name: &str, nonce: &str| DeltaDiscoveryResponse {
            type_url: resource.type_url.clone(),
            nonce: nonce.to_owned(),
            resources: vec![Wrapper {
                name: name.to_owned(),
                version: "1".to_owned(),
                resource: Some(resource),
                ..Wrapper::default()
            }],
            ..DeltaDiscoveryResponse::default()
        };
        stream.respond(answer(xds_protos::any::pack(&routes), "r", "n1"));
        stream.request().await;
        let first = stream.request().await;
        assert_eq!((&first.type_url, first.resource_names_subscribe.len()), (&type_url, 0));

        let host = |name: &str| {
            xds_protos::any::pack(&VirtualHost {
                name: name.to_owned(),
                domains: vec![format!("{name}.example")],
                ..VirtualHost::default()
            })
        };
        let before = slot.load().unwrap();
        stream.respond(answer(host("a"), "r/a", "n2"));
        assert_eq!(stream.request().await.response_nonce, "n2");
        assert!(!Arc::ptr_eq(&before, &slot.load().unwrap()));

        let before = slot.load().unwrap();
        let mut answers = slot.demand("b.example").unwrap();
        let request = stream.request().await;
        assert_eq!(request.resource_names_subscribe, ["r/b.example"]);
        stream.respond(answer(host("b"), "r/b", "n3"));
        answers.changed().await.unwrap();
        assert!(!Arc::ptr_eq(&before, &slot.load().unwrap()));
        // Another route configuration's hosts are not of interest.
        stream.respond(answer(host("c"), "other/c", "n4"));
        assert_eq!(stream.request().await.response_nonce, "n3");
        assert_eq!(stream.request().await.response_nonce, "n4");
        assert_eq!(
            proxy.server.stats.counter_value("http.a.rds.vhds.r.config_reload"),
            Some(2)
        );
    });
}
