use std::net::TcpStream;

use xds_protos::envoy::config::core::v3::{SocketOption as Proto, socket_option::Value};

use super::*;
use crate::{config::BuildCx, route::test_support::server};

fn loopback() -> Address {
    Address::Ip(([127, 0, 0, 1], 0).into())
}

fn options() -> ListenOptions {
    ListenOptions {
        reuse_port: true,
        ..ListenOptions::default()
    }
}

fn option(state: SocketState, level: i32, name: i32) -> SocketOption {
    let proto = Proto {
        level: level.into(),
        name: name.into(),
        state: state.into(),
        value: Some(Value::IntValue(1)),
        ..Proto::default()
    };
    SocketOption::build(proto, &mut BuildCx::new(&server())).unwrap()
}

#[test]
fn clients_are_refused_until_it_listens() {
    let sockets = bind(&loopback(), &options(), 2, &"l".into()).unwrap();
    let address = sockets[0].local_address(&loopback());
    assert_eq!(sockets[1].local_address(&loopback()), address);
    let Address::Ip(ip) = &address else { unreachable!() };
    assert_eq!(
        TcpStream::connect(ip).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    for socket in &sockets {
        socket.listen(&address, &options()).unwrap();
    }
    TcpStream::connect(ip).unwrap();
}

#[test]
fn an_address_in_use_is_told_in_envoys_words() {
    let first = bind(&loopback(), &options(), 1, &"l".into()).unwrap();
    let address = first[0].local_address(&loopback());
    first[0].listen(&address, &options()).unwrap();
    let other = ListenOptions::default();
    let error = bind(&address, &other, 1, &"l".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot bind '{address}': Address already in use")
    );
}

#[test]
fn options_fail_at_their_moment() {
    let with = |state| ListenOptions {
        socket_options: vec![option(state, 99_999, 9)],
        ..options()
    };
    let listener: Arc<str> = "l".into();
    let bound = |options: &ListenOptions| bind(&loopback(), options, 1, &listener);
    let told = |error: ListenError| error.to_string();
    assert_eq!(
        told(bound(&with(SocketState::StatePrebind)).unwrap_err()),
        "ListenSocket: Setting socket options failed"
    );
    assert_eq!(
        told(bound(&with(SocketState::StateBound)).unwrap_err()),
        "l: Setting socket options failed"
    );
    let options = with(SocketState::StateListening);
    let socket = bound(&options).unwrap().remove(0);
    let address = socket.local_address(&loopback());
    assert_eq!(
        told(socket.listen(&loopback(), &options).unwrap_err()),
        format!("cannot set post-listen socket option on socket: {address}")
    );
}

#[test]
fn options_are_set() {
    let options = ListenOptions {
        socket_options: vec![option(SocketState::StatePrebind, libc::SOL_SOCKET, libc::SO_KEEPALIVE)],
        ..options()
    };
    let sockets = bind(&loopback(), &options, 1, &"l".into()).unwrap();
    assert!(SockRef::from(&sockets[0]).keepalive().unwrap());
}

#[test]
fn a_namespace_that_is_none() {
    let at = |path: &str| ListenOptions {
        namespace: Some(path.into()),
        ..options()
    };
    let error = bind(&loopback(), &at("/nonexistent"), 1, &"l".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to open netns file /nonexistent: No such file or directory"
    );
    let told = bind(&loopback(), &at("/dev/null"), 1, &"l".into())
        .unwrap_err()
        .to_string();
    // Without the right to enter namespaces the file is not even looked at.
    let reasons = ["): Invalid argument", "): Operation not permitted"];
    assert!(told.starts_with("failed to set netns to /dev/null (fd="), "{told}");
    assert!(reasons.iter().any(|reason| told.ends_with(reason)), "{told}");
}
