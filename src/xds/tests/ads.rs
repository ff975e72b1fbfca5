//! SotW over the aggregated stream.

use super::*;

fn response(type_url: &str, version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        type_url: type_url.to_owned(),
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        resources,
        ..DiscoveryResponse::default()
    }
}

fn error(request: &DiscoveryRequest) -> &str {
    request.error_detail.as_ref().map_or("", |e| &e.message)
}

#[test]
fn good_resources_of_a_bad_response_are_applied_and_the_bad_are_named() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);

        let mut stream = plane.sotw.recv().await.unwrap();
        let first = stream.request().await;
        assert_eq!(
            (first.type_url, first.resource_names),
            (clusters(), Vec::<String>::new())
        );
        assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("", ""));
        assert_eq!(first.node.unwrap().id, "me");

        let garbage = Any {
            type_url: clusters(),
            value: vec![0xff; 3],
        };
        let mixed = vec![cluster("a"), cluster("bad1"), garbage, cluster("bad2"), cluster("b")];
        stream.respond(response(&clusters(), "1", "n1", mixed));
        let told = watched.next().await;
        assert_eq!(
            told,
            update("1", &[("a", "1"), ("bad1", "1"), ("bad2", "1"), ("b", "1")], &[])
        );
        let nack = stream.request().await;
        assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("", "n1"));
        assert!(nack.node.is_none(), "the node is sent once");
        let detail = error(&nack);
        assert!(detail.starts_with("Error adding/updating cluster(s) "), "{detail}");
        assert!(
            detail.contains("bad1: it is bad") && detail.contains("bad2: it is bad"),
            "{detail}"
        );
        assert!(
            detail.contains("Unable to unpack as envoy.config.cluster.v3.Cluster"),
            "{detail}"
        );

        let refused = proxy.server.xds.inventory.resource(&clusters(), "bad1").unwrap();
        assert_eq!(refused.error.unwrap().details, "it is bad");

        // What was seen at "1" and is missing now is gone.
        stream.respond(response(&clusters(), "2", "n2", vec![cluster("b"), cluster("c")]));
        watched.next().await;
        let ack = stream.request().await;
        assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("2", "n2"));
        assert_eq!(error(&ack), "");
        stream.respond(response(&clusters(), "3", "n3", vec![cluster("c")]));
        assert_eq!(watched.next().await, update("3", &[("c", "3")], &["b"]));

        let stats = &proxy.server.stats;
        assert_eq!(stats.counter_value("test.update_rejected"), Some(1));
        assert_eq!(stats.counter_value("test.update_success"), Some(2));
        assert_eq!(stats.gauge_value("control_plane.connected_state"), Some(1));
    });
}

#[test]
fn a_new_stream_is_told_the_version_and_the_node_but_no_nonce() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        stream.respond(response(&clusters(), "1", "n1", vec![cluster("a")]));
        stream.request().await;
        stream.end(Status::unavailable("restarting"));

        let mut stream = plane.sotw.recv().await.unwrap();
        let first = stream.request().await;
        assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("1", ""));
        assert!(first.node.is_some());
        assert_eq!(watched.next().await, update("1", &[("a", "1")], &[]));
        let lost = Told::Failed(FetchFailure::Connection("restarting".to_owned()));
        assert_eq!(watched.next().await, lost);
        // The world is still known: what the new stream no longer has is gone.
        stream.respond(response(&clusters(), "2", "m1", vec![]));
        assert_eq!(watched.next_update().await, update("2", &[], &["a"]));
    });
}

#[test]
fn what_is_subscribed_while_clusters_are_applied_is_asked_for_at_once() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let guards = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, mut told) = mpsc::unbounded_channel();
        let kept = guards.clone();
        let subscribe = move |update: &Update, server: &Arc<ServerContext>| {
            for resource in &update.added {
                let handler = Recorder {
                    prefix: "eds.".to_owned(),
                    told: sender.clone(),
                    on_update: None,
                };
                let names = one(&resource.name);
                let guard = server.xds.watch(server, &endpoints(), &ads(), names, Box::new(handler));
                kept.lock().unwrap().push_back(guard);
            }
        };
        let _watched = watch_with(&proxy, &clusters(), &ads(), Names::Wildcard, Some(Box::new(subscribe)));
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        let three = vec![cluster("c"), cluster("a"), cluster("b")];
        stream.respond(response(&clusters(), "1", "n1", three));
        assert_eq!(stream.request().await.version_info, "1");
        let request = stream.request().await;
        assert_eq!(request.type_url, endpoints());
        assert_eq!(request.resource_names, ["a", "b", "c"]);

        // Each watch gets its own; the absence of others means nothing.
        stream.respond(response(&endpoints(), "1", "n2", vec![assignment("b")]));
        assert_eq!(told.recv().await.unwrap(), update("1", &[("b", "1")], &[]));
        stream.request().await;
        guards.lock().unwrap().pop_front();
        let request = stream.request().await;
        assert_eq!(request.resource_names, ["a", "b"]);
        assert_eq!(
            (request.version_info.as_str(), request.response_nonce.as_str()),
            ("1", "n2")
        );
    });
}

#[test]
fn a_watch_that_joins_another_of_its_name_is_served_at_once() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let first = watch(&proxy, &endpoints(), &ads(), one("a"));
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        stream.respond(response(&endpoints(), "1", "n1", vec![assignment("a")]));
        stream.request().await;

        // As a cluster update does: the new watch is made, then the old one dropped.
        let mut second = watch(&proxy, &endpoints(), &ads(), one("a"));
        drop(first.guard);
        assert_eq!(second.next().await, update("1", &[("a", "1")], &[]));
    });
}

#[test]
fn a_watch_whose_guard_is_dropped_is_told_nothing_more() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let mut gone = watch(&proxy, &endpoints(), &ads(), one("a"));
        let mut other = watch(&proxy, &endpoints(), &ads(), one("b"));
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        drop(gone.guard);
        assert_eq!(stream.request().await.resource_names, ["b"]);
        stream.respond(response(
            &endpoints(),
            "1",
            "n1",
            vec![assignment("a"), assignment("b")],
        ));
        assert_eq!(other.next().await, update("1", &[("b", "1")], &[]));
        assert!(gone.told.recv().await.is_none(), "its handler is gone");
    });
}

#[test]
fn no_first_answer_is_a_timeout_and_a_later_answer_still_counts() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let source = source("{ ads: {}, initial_fetch_timeout: 0.05s }");
        let mut watched = watch(&proxy, &endpoints(), &source, one("a"));
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        assert_eq!(watched.next().await, Told::Failed(FetchFailure::Timeout));
        assert_eq!(proxy.server.stats.counter_value("test.init_fetch_timeout"), Some(1));
        stream.respond(response(&endpoints(), "1", "n1", vec![assignment("a")]));
        assert_eq!(watched.next().await, update("1", &[("a", "1")], &[]));
    });
}

#[test]
fn a_resource_without_heartbeat_dies_with_its_time_to_live() {
    run(async {
        use xds_protos::{envoy::service::discovery::v3::Resource as Wrapper, google::protobuf::Duration};
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let mut watched = watch(&proxy, &endpoints(), &ads(), one("a"));
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        let wrapped = xds_protos::any::pack(&Wrapper {
            name: "a".to_owned(),
            resource: Some(assignment("a")),
            ttl: Some(Duration {
                seconds: 0,
                nanos: 20_000_000,
            }),
            ..Wrapper::default()
        });
        stream.respond(response(&endpoints(), "1", "n1", vec![wrapped]));
        assert_eq!(watched.next().await, update("1", &[("a", "1")], &[]));
        assert_eq!(watched.next().await, update("", &[], &["a"]));
    });
}

#[test]
fn responses_of_unwatched_types_are_ignored() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        stream.respond(response("type.googleapis.com/no.such.Type", "1", "n1", vec![]));
        stream.respond(response(&clusters(), "1", "n2", vec![]));
        assert_eq!(watched.next().await, update("1", &[], &[]));
        assert_eq!(stream.request().await.response_nonce, "n2");
    });
}

#[test]
fn a_paused_type_is_acknowledged_when_it_is_resumed() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let mut watched = watch(&proxy, &clusters(), &ads(), Names::Wildcard);
        let _assignment = watch(&proxy, &endpoints(), &ads(), one("a"));
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        stream.request().await;
        proxy.server.xds.begin_pausing();
        let pause = proxy.server.xds.pause(&clusters());
        stream.respond(response(&clusters(), "1", "n1", vec![cluster("a")]));
        watched.next().await;
        stream.respond(response(&endpoints(), "1", "n2", vec![assignment("a")]));
        assert_eq!(stream.request().await.response_nonce, "n2");
        drop(pause);
        assert_eq!(stream.request().await.response_nonce, "n1");
    });
}

#[test]
fn what_a_response_does_not_say_is_kept_when_it_cannot_be_read_as_a_whole() {
    run(async {
        let mut plane = ControlPlane::start().await;
        let proxy = ads_proxy(plane.address, "GRPC");
        let (_guard, mut target) = crate::xds::resources::cds::subscribe(&ads(), &proxy.server);
        let mut stream = plane.sotw.recv().await.unwrap();
        stream.request().await;
        stream.respond(response(&clusters(), "1", "n1", vec![cluster("a"), cluster("b")]));
        target.ready.wait_for(|ready| *ready).await.unwrap();
        assert_eq!(stream.request().await.version_info, "1");
        // Its name is there, its rules are broken.
        let broken = xds_protos::any::pack(&Cluster {
            name: "c".to_owned(),
            connect_timeout: Some(xds_protos::google::protobuf::Duration { seconds: -1, nanos: 0 }),
            ..Cluster::default()
        });
        stream.respond(response(&clusters(), "2", "n2", vec![cluster("b"), broken]));
        assert!(error(&stream.request().await).contains("c: "));
        assert!(proxy.server.clusters.contains("a"));
        // The next that can be read removes what was missing all along.
        stream.respond(response(&clusters(), "3", "n3", vec![cluster("b")]));
        assert_eq!(stream.request().await.version_info, "3");
        assert!(!proxy.server.clusters.contains("a") && proxy.server.clusters.contains("b"));
        let known = proxy.server.xds.inventory.resources(&clusters());
        assert_eq!(known.keys().collect::<Vec<_>>(), ["b"]);
    });
}
