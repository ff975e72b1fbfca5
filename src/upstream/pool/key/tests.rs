use bytes::Bytes;

use super::*;
use crate::{
    http::stream_info::{FilterState, FilterStateObject, ProxyData, Sharing},
    net::Address,
};

fn options() -> TransportOptions {
    TransportOptions {
        sni: Some("a.test".into()),
        verify_sans: vec!["a.test".into()],
        alpn: vec!["h2".into()],
        proxy: Some(Arc::new(proxy())),
    }
}

fn proxy() -> ProxyData {
    ProxyData {
        source: Address::Ip(([10, 0, 0, 1], 1).into()),
        destination: Address::Ip(([10, 0, 0, 2], 2).into()),
        tlvs: vec![(1, Bytes::from_static(b"one"))],
    }
}

fn key(edit: impl FnOnce(&mut TransportOptions)) -> PoolKey {
    let mut options = options();
    edit(&mut options);
    PoolKey {
        transport: Some(Arc::new(options)),
        ..PoolKey::default()
    }
}

#[test]
fn equal_wishes_share() {
    assert_eq!(key(|_| {}), key(|_| {}));
    assert_eq!(PoolKey::default(), PoolKey::default());
}

/// Each part of the options keeps connections apart. Written without `..`, so that a part that is added has to be
/// tried here.
#[test]
fn every_part_of_the_transport_options_keeps_apart() {
    let TransportOptions {
        sni: _,
        verify_sans: _,
        alpn: _,
        proxy: _,
    } = options();
    let proxied = |edit: fn(&mut ProxyData)| {
        key(move |o| {
            let mut proxy = proxy();
            edit(&mut proxy);
            o.proxy = Some(Arc::new(proxy));
        })
    };
    let others = [
        key(|o| o.sni = Some("b.test".into())),
        key(|o| o.sni = None),
        key(|o| o.verify_sans.push("b.test".into())),
        key(|o| o.verify_sans.clear()),
        key(|o| o.alpn = vec!["http/1.1".into()]),
        key(|o| o.proxy = None),
        proxied(|p| p.source = Address::Ip(([10, 0, 0, 9], 1).into())),
        proxied(|p| p.destination = Address::Ip(([10, 0, 0, 2], 9).into())),
        proxied(|p| p.tlvs.clear()),
        PoolKey::default(),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(*other, key(|_| {}), "{at}");
    }
}

#[test]
fn priority_protocol_and_downstream_connection_keep_apart() {
    let plain = PoolKey::default();
    let others = [
        PoolKey {
            priority: ResourcePriority::High,
            ..plain.clone()
        },
        PoolKey {
            protocol: HttpProtocol::Http2,
            ..plain.clone()
        },
        PoolKey {
            downstream: Some(1),
            ..plain.clone()
        },
    ];
    for other in others {
        assert_ne!(other, plain);
    }
}

/// Who a client is, as a filter leaves it for the connections behind.
#[derive(Debug)]
struct Principal(&'static str, Option<u64>);

impl FilterStateObject for Principal {
    fn as_text(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.0.into())
    }

    fn hash(&self) -> Option<u64> {
        self.1
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn of(name: &str, text: &'static str, hash: Option<u64>, sharing: Sharing) -> PoolKey {
    let mut state = FilterState::default();
    state.set(name.into(), Rc::new(Principal(text, hash)), sharing, false);
    PoolKey {
        shared: SharedObjects::of(&state, &FilterState::default()),
        ..PoolKey::default()
    }
}

#[test]
fn principals_never_meet_on_a_connection() {
    let alice = of("principal", "alice", Some(1), Sharing::Once);
    assert_eq!(alice, of("principal", "alice", Some(1), Sharing::Once));
    for other in [
        of("principal", "bob", Some(2), Sharing::Once),
        // Equal hashes are no equal principals.
        of("principal", "bob", Some(1), Sharing::Once),
        of("other", "alice", Some(1), Sharing::Once),
        of("principal", "alice", Some(1), Sharing::None),
        PoolKey::default(),
    ] {
        assert_ne!(alice, other);
    }
    // What has no hash goes along and keeps nobody apart.
    assert_eq!(
        of("note", "a", None, Sharing::Once),
        of("note", "b", None, Sharing::Once)
    );
}
