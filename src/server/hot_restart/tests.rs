use std::{
    io::{Read, Write},
    net::TcpStream,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use super::{
    protocol::{self, Ask, Hello, Reply, Request},
    sockets::{SharedSockets, SocketKind, adopt},
};
use crate::net::{Address, ListenOptions, ListenSocket, bind};

fn options(reuse_port: bool) -> ListenOptions {
    ListenOptions {
        reuse_port,
        backlog: Some(16),
        ..ListenOptions::default()
    }
}

fn listening(at: &Address, options: &ListenOptions, workers: usize) -> Vec<ListenSocket> {
    let sockets = bind(at, options, workers, &"l".into()).unwrap();
    for socket in &sockets {
        socket.listen(at, options).unwrap();
    }
    sockets
}

fn adopted(passed: Vec<OwnedFd>, at: &Address, options: &ListenOptions, workers: usize) -> Vec<Vec<ListenSocket>> {
    let sockets = adopt(passed, at, options, workers, &"l".into()).unwrap();
    for socket in sockets.iter().flatten() {
        socket.listen(at, options).unwrap();
    }
    sockets
}

fn any_port() -> Address {
    Address::Ip(([127, 0, 0, 1], 0).into())
}

/// The address of the first socket.
fn address(sockets: &[ListenSocket]) -> Address {
    sockets[0].local_address(&any_port())
}

/// Connects, and takes the connection from one of the sockets.
fn one_of_them_accepts(to: &Address, sockets: &[&ListenSocket]) {
    let Address::Ip(ip) = to else { panic!("{to}") };
    let mut client = TcpStream::connect(ip).unwrap();
    client.write_all(b"x").unwrap();
    for _ in 0..1000 {
        for socket in sockets {
            if let ListenSocket::Tcp(s) = socket
                && let Ok((mut stream, _)) = s.accept()
            {
                stream.set_nonblocking(false).unwrap();
                stream.read_exact(&mut [0]).unwrap();
                return;
            }
        }
        std::thread::yield_now();
    }
    panic!("nobody accepts at {to}");
}

#[test]
fn messages_carry_descriptors() {
    let (a, b) = UnixStream::pair().unwrap();
    let (passed, kept) = UnixStream::pair().unwrap();
    let ask = Ask::Hello(Hello {
        version: 1,
        epoch: 2,
        pid: 3,
    });
    let request = Request { ask: Some(ask) };
    protocol::send(&a, &request, &[passed.as_fd(), passed.as_fd()]).unwrap();
    drop(passed);
    let (got, sockets) = protocol::receive::<Request>(&b).unwrap().unwrap();
    assert_eq!(got, request);
    assert_eq!(sockets.len(), 2);
    let mut through = UnixStream::from(sockets.into_iter().next().unwrap());
    through.write_all(b"y").unwrap();
    (&kept).read_exact(&mut [0]).unwrap();
    drop(a);
    assert!(protocol::receive::<Request>(&b).unwrap().is_none());
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"nhr1\xff\xff\xff\xff",
        b"nhr1\x02\0\0\0\xff\xff",
        b"nhr",
    ] {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(bytes).unwrap();
        drop(a);
        assert!(protocol::receive::<Reply>(&b).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_socket_is_shared_for_as_long_as_it_is_used() {
    let sockets = listening(&any_port(), &options(true), 3);
    let at = address(&sockets);
    let shared = SharedSockets::default();
    let mut guards: Vec<_> = sockets
        .iter()
        .map(|s| shared.share(SocketKind::Stream, s.as_fd()))
        .collect();
    // Two descriptors of one socket are one socket.
    let again = sockets[0].try_clone().unwrap();
    guards.push(shared.share(SocketKind::Stream, again.as_fd()));
    assert_eq!(shared.of(SocketKind::Stream, &at.to_string()).len(), 3);
    assert!(shared.of(SocketKind::Admin, &at.to_string()).is_empty());
    guards.remove(1);
    assert_eq!(shared.of(SocketKind::Stream, &at.to_string()).len(), 2);
    guards.clear();
    assert!(shared.of(SocketKind::Stream, &at.to_string()).is_empty());
}

#[test]
fn every_socket_of_the_parent_finds_a_worker() {
    for (parents, workers, sockets_of_each) in [(2, 2, vec![1, 1]), (4, 2, vec![2, 2]), (1, 3, vec![1, 1, 1])] {
        let before = listening(&any_port(), &options(true), parents);
        let at = address(&before);
        let passed = before.iter().map(|s| s.as_fd().try_clone_to_owned().unwrap()).collect();
        let adopted = adopted(passed, &at, &options(true), workers);
        assert_eq!(adopted.iter().map(Vec::len).collect::<Vec<_>>(), sockets_of_each);
        drop(before);
        let all: Vec<_> = adopted.iter().flatten().collect();
        for _ in 0..8 {
            one_of_them_accepts(&at, &all);
        }
    }
}

#[test]
fn the_only_socket_of_an_address_serves_all_workers() {
    let before = listening(&any_port(), &options(false), 2);
    let at = address(&before);
    let passed = vec![before[0].as_fd().try_clone_to_owned().unwrap()];
    drop(before);
    // The configuration wants one each now, which the kernel would refuse beside this one.
    let adopted = adopted(passed, &at, &options(true), 3);
    assert_eq!(adopted.len(), 3);
    for worker in &adopted {
        one_of_them_accepts(&at, &worker.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_unix_socket_keeps_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listener");
    let at = Address::Pipe(path.to_str().unwrap().into());
    let before = listening(&at, &options(true), 1);
    let shared = SharedSockets::default();
    let _guard = shared.share(SocketKind::Stream, before[0].as_fd());
    let passed = shared.of(SocketKind::Stream, &at.to_string());
    assert_eq!(passed.len(), 1);
    let adopted = adopted(passed, &at, &options(true), 2);
    drop(before);
    let _client = UnixStream::connect(&path).unwrap();
    let ListenSocket::Unix(s) = &adopted[1][0] else {
        panic!("{adopted:?}")
    };
    s.accept().unwrap();
}

#[test]
fn datagrams_wait_in_the_same_queue() {
    let udp = ListenOptions {
        datagram: true,
        ..options(true)
    };
    let before = listening(&any_port(), &udp, 2);
    let at = address(&before);
    let shared = SharedSockets::default();
    let guards: Vec<_> = before
        .iter()
        .map(|s| shared.share(SocketKind::of(s), s.as_fd()))
        .collect();
    let passed = shared.of(SocketKind::Datagram, &at.to_string());
    assert_eq!(passed.len(), 2);
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"early", at.to_string()).unwrap();
    drop((before, guards));
    let adopted = adopted(passed, &at, &udp, 2);
    let got = adopted.iter().flatten().any(|socket| match socket {
        ListenSocket::Udp(s) => s.recv(&mut [0; 8]).is_ok_and(|n| n == 5),
        _ => false,
    });
    assert!(got);
}
