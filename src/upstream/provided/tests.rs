use std::{sync::Arc, time::Duration};

use xds_protos::{
    any,
    envoy::{
        config::cluster::v3::{
            Cluster as Proto,
            cluster::{ClusterDiscoveryType, CustomClusterType, LbPolicy},
        },
        extensions::clusters::aggregate::v3::ClusterConfig,
    },
};

use crate::upstream::{
    Host, HostAttributes, LbContext, OriginalDst,
    tests::{local, running_server, static_cluster},
};

fn member(name: &str, port: u16) -> Proto {
    Proto {
        name: name.into(),
        ..static_cluster(&[([127, 0, 0, 1], port).into()])
    }
}

fn aggregate(members: &[&str]) -> Proto {
    let config = ClusterConfig {
        clusters: members.iter().map(|m| (*m).to_owned()).collect(),
    };
    Proto {
        name: "all".into(),
        lb_policy: LbPolicy::ClusterProvided as i32,
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.aggregate".into(),
            typed_config: Some(any::pack(&config)),
        })),
        ..Default::default()
    }
}

#[test]
fn an_aggregate_follows_its_members() {
    local(async {
        let (server, worker) = running_server();
        let put = |proto: Proto| {
            server
                .clusters
                .add_or_update(proto.clone(), "1", any::pack(&proto), &server)
        };
        put(aggregate(&["late", "b"])).unwrap();
        put(member("b", 2)).unwrap();
        tokio::task::yield_now().await;
        let all = worker.clusters.get("all").unwrap();
        let pick = || all.pick(&LbContext::default()).map(|h| h.address.to_string());
        assert_eq!(pick().as_deref(), Some("127.0.0.1:2"));

        put(member("late", 1)).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(pick().as_deref(), Some("127.0.0.1:1"));
        let host = all.pick(&LbContext::default()).unwrap();
        assert_eq!(&*all.owner(&host).unwrap().info.name, "late");
        assert_eq!(all.priority_of(&host), 0);
        // A retry that avoids the first priority goes to the next member.
        let other = all.pick(&LbContext {
            avoid_priorities: &[0],
            ..LbContext::default()
        });
        assert_eq!(all.priority_of(&other.unwrap()), 1);

        server.clusters.remove("late", &server);
        server.clusters.remove("b", &server);
        tokio::task::yield_now().await;
        assert_eq!(pick(), None);
    });
}

#[test]
fn an_unused_original_destination_goes_at_the_second_clean_up() {
    local(async {
        let (server, _worker) = running_server();
        let proto = static_cluster(&[]);
        server
            .clusters
            .add_static(proto.clone(), any::pack(&proto), &server)
            .unwrap();
        let cluster = server.clusters.get("test").unwrap();
        let shared = OriginalDst::new(None, None, None, Duration::from_secs(5));
        let to = ([127, 0, 0, 1], 1).into();
        let made = || Arc::new(Host::new(crate::net::Address::Ip(to), "", 1, HostAttributes::default()));
        let (first, second) = (made(), made());
        shared.add(to, first.clone(), &cluster, &server);
        shared.add(to, second.clone(), &cluster, &server);
        assert!(second.is_removed() && !first.is_removed());
        let count = || cluster.hosts.load().hosts().count();
        assert_eq!(count(), 1);
        shared.clean_up(&cluster, &server);
        assert_eq!(count(), 1);
        shared.clean_up(&cluster, &server);
        assert!(first.is_removed() && count() == 0);
    });
}
