//! Requests that want different connections: none is shared, and nothing is left of identities that are gone.

use std::{any::Any, borrow::Cow};

use super::*;
use crate::http::stream_info::{FilterState, FilterStateObject, SharedObjects, Sharing};

/// Who a client is, as a filter leaves it in filter state.
#[derive(Debug)]
struct Principal(u64);

impl FilterStateObject for Principal {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        Some(self.0.to_string().into())
    }

    fn hash(&self) -> Option<u64> {
        Some(self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn of(identity: u64) -> PoolOptions {
    let mut state = FilterState::default();
    state.set("principal".into(), Rc::new(Principal(identity)), Sharing::Once, false);
    PoolOptions {
        shared: SharedObjects::of(&state, &FilterState::default()),
        ..PoolOptions::default()
    }
}

async fn get_as(cluster: &Rc<WorkerCluster>, options: &PoolOptions) {
    let host = cluster.pick(&LbContext::default()).unwrap();
    let lease = cluster.http(&host, options).acquire().await.unwrap();
    let response = lease.send(head("/"), Body::Empty, &mut |_| {}).await.unwrap();
    response.body.collect().await.unwrap();
}

#[test]
fn identities_do_not_share() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let cluster = add(&server(), static_cluster(&[address]));
        for identity in [1, 2, 1, 2, 3] {
            get_as(&cluster, &of(identity)).await;
        }
        assert_eq!(backend.connections.get(), 3);
    });
}

#[test]
fn downstream_connections_share_unless_told_otherwise() {
    for (apart, connections) in [(false, 1), (true, 2)] {
        local(async move {
            let (backend, address) = Backend::start(false).await;
            let mut proto = static_cluster(&[address]);
            proto.connection_pool_per_downstream_connection = apart;
            let cluster = add(&server(), proto);
            for connection in [7, 8, 7] {
                let options = PoolOptions {
                    connection: Some(connection),
                    ..PoolOptions::default()
                };
                get_as(&cluster, &options).await;
            }
            assert_eq!(backend.connections.get(), connections);
        });
    }
}

#[test]
fn a_pool_goes_with_its_last_connection() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let cluster = add(&server(), static_cluster(&[address]));
        for identity in 0..5 {
            get_as(&cluster, &of(identity)).await;
        }
        let pools = || cluster.pools.borrow().values().map(|pools| pools.len()).sum::<usize>();
        assert_eq!(pools(), 5);
        backend.hang_up();
        until(|| pools() == 0).await;
        get_as(&cluster, &of(0)).await;
        assert_eq!(pools(), 1);
    });
}

#[test]
fn an_idle_pool_makes_room_for_another() {
    local(async {
        let (backend, address) = Backend::start(false).await;
        let mut proto = static_cluster(&[address]);
        proto.circuit_breakers = Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connection_pools: Some(pb::UInt32Value { value: 1 }),
                ..Default::default()
            }],
            ..Default::default()
        });
        let server = server();
        let cluster = add(&server, proto);
        get_as(&cluster, &of(1)).await;
        get_as(&cluster, &of(2)).await;
        assert_eq!(backend.connections.get(), 2);
        // One that is busy stays.
        let busy = cluster.clone();
        let held = spawn_local(async move {
            let host = busy.pick(&LbContext::default()).unwrap();
            let lease = busy.http(&host, &of(2)).acquire().await.unwrap();
            lease
                .send(head("/wait"), Body::Empty, &mut |_| {})
                .await
                .unwrap()
                .head
                .status
        });
        until(|| backend.waiting.get() == 1).await;
        let host = cluster.pick(&LbContext::default()).unwrap();
        assert!(cluster.http(&host, &of(3)).is_refused());
        backend.release.notify_one();
        assert_eq!(held.await.unwrap(), StatusCode::OK);
    });
}

#[test]
fn connections_are_opened_ahead() {
    use xds_protos::envoy::config::cluster::v3::cluster::PreconnectPolicy;
    local(async {
        let (backend, address) = Backend::start(false).await;
        let mut proto = static_cluster(&[address]);
        proto.preconnect_policy = Some(PreconnectPolicy {
            per_upstream_preconnect_ratio: Some(pb::DoubleValue { value: 2.0 }),
            ..Default::default()
        });
        let cluster = add(&server(), proto);
        get_as(&cluster, &PoolOptions::default()).await;
        until(|| backend.connections.get() == 2).await;
        get_as(&cluster, &PoolOptions::default()).await;
        assert_eq!(backend.connections.get(), 2);
    });
}
