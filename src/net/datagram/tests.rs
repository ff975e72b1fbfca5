use std::os::fd::AsFd;

use super::*;

fn options() -> ListenOptions {
    ListenOptions {
        datagram: true,
        reuse_port: true,
        ..ListenOptions::default()
    }
}

fn client() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn receive(reader: &mut DatagramReader, socket: &UdpSocket) -> (Vec<Vec<u8>>, DatagramBatch) {
    let mut got = Vec::new();
    let batch = reader.receive(socket.as_fd(), |d| got.push(d.bytes.to_vec())).unwrap();
    (got, batch)
}

#[test]
fn a_batch_has_whole_datagrams_and_counts_those_that_are_too_long() {
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), &options()).unwrap();
    let (client, to) = (client(), socket.local_addr().unwrap());
    for length in [3, 0, 10, 11, 4] {
        client.send_to(&vec![b'x'; length], to).unwrap();
    }
    let mut reader = DatagramReader::new(10, false);
    let (got, batch) = receive(&mut reader, &socket);
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [3, 0, 10, 4]);
    assert_eq!((batch.truncated, batch.drained), (1, true));
    let empty = reader.receive(socket.as_fd(), |_| {}).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn headers_serve_again_after_control_messages() {
    let socket = bind((Ipv4Addr::UNSPECIFIED, 0).into(), &options()).unwrap();
    let (client, port) = (client(), socket.local_addr().unwrap().port());
    let mut reader = DatagramReader::new(100, false);
    for last in [1, 2, 3] {
        client.send_to(b"x", (Ipv4Addr::new(127, 0, 0, last), port)).unwrap();
        let mut seen = None;
        reader.receive(socket.as_fd(), |d| seen = d.to).unwrap();
        assert_eq!(seen, Some(Ipv4Addr::new(127, 0, 0, last).into()));
    }
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let socket = bind((Ipv4Addr::UNSPECIFIED, 0).into(), &options()).unwrap();
    let (client, port) = (client(), socket.local_addr().unwrap().port());
    let asked = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 7), port));
    send_datagram(socket.as_fd(), b"hi", client.local_addr().unwrap(), Some(asked.ip())).unwrap();
    let mut buffer = [0; 8];
    let (n, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..n], from), (&b"hi"[..], asked));
}

#[test]
fn with_gro_what_was_put_together_is_taken_apart() {
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), &options()).unwrap();
    prefer_gro(&socket);
    let (client, to) = (client(), socket.local_addr().unwrap());
    client.connect(to).unwrap();
    // Over loopback, datagrams of one sending call are what arrives together.
    let sent = sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(&[b'x'; 2500])],
        &[ControlMessage::UdpGsoSegments(&1000)],
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent, Ok(2500));
    client.send(&[b'y'; 3000]).unwrap();
    let mut reader = DatagramReader::new(1500, true);
    let mut got = Vec::new();
    while got.iter().sum::<usize>() < 5500 {
        match reader.receive(socket.as_fd(), |d| got.push(d.bytes.len())) {
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            Ok(batch) => assert_eq!(batch.truncated, 0),
        }
    }
    assert_eq!(got, [1000, 1000, 500, 3000]);
}
