use std::{cell::RefCell, io};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use xds_protos::{
    envoy::config::bootstrap::v3::Bootstrap,
    google::protobuf::{Any, Struct, Value, value::Kind},
    prost::Message,
};

use super::{wire::Metadata, *};
use crate::{
    cli::Cli,
    extensions::common::workload::node::encode_sorted,
    http::{StreamInfo, stream_info::FindingSlot},
    route::test_support::stream,
    server::ServerContext,
};

fn config(labels: &[&str]) -> Arc<Config> {
    let proto = Proto {
        protocol: "istio-peer-exchange".into(),
        enable_discovery: false,
        additional_labels: labels.iter().map(|l| (*l).to_owned()).collect(),
    };
    // Of its own, for it counts.
    let cli = Cli::read(["nuncio", "--concurrency", "1"].map(Into::into)).unwrap();
    let server = ServerContext::new(Bootstrap::default(), &cli).unwrap();
    Config::build(proto, &mut BuildCx::new(&server)).unwrap()
}

fn reviews() -> WorkloadMetadata {
    WorkloadMetadata {
        workload_name: "reviews-v1".into(),
        namespace_name: "books".into(),
        labels: vec![("role".into(), "api".into())],
        ..Default::default()
    }
}

/// A peer's socket, and the stream of a client's proxy at the other end.
async fn exchange(config: &Arc<Config>) -> (TcpStream, Exchange, FindingSlot) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    let slot = FindingSlot::default();
    let told = Told::Slot(slot.clone());
    let stream = Exchange::new(Stream::Tcp(ours), config.clone(), Peer::Upstream, None, told);
    (peer, stream, slot)
}

/// Whom the filter has found: none for nobody.
fn found(slot: &FindingSlot) -> Option<WorkloadMetadata> {
    let mut info: StreamInfo = stream();
    slot.get().unwrap().leave(&mut info.filter_state);
    assert!(Peer::Upstream.is_settled(&info.filter_state));
    Peer::Upstream
        .get(&info.filter_state)
        .map(|w| WorkloadMetadata::clone(w))
}

#[tokio::test]
async fn metadata_are_taken_off_the_front() {
    let config = config(&["role"]);
    let message = wire::message(&reviews(), "node");
    // However the bytes are cut.
    for cut in [1, 7, 8, 9, message.len() - 1, message.len(), message.len() + 2] {
        let (mut peer, mut stream, slot) = exchange(&config).await;
        let bytes = [&message[..], b"data"].concat();
        let (first, second) = bytes.split_at(cut);
        let sending = async {
            peer.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            peer.write_all(second).await.unwrap();
            let mut own = vec![0; config.own.len()];
            peer.read_exact(&mut own).await.unwrap();
            assert_eq!(own, config.own);
        };
        let reading = async {
            let mut data = [0; 4];
            stream.read_exact(&mut data).await.unwrap();
            assert_eq!(&data, b"data");
        };
        futures_util::future::join(sending, reading).await;
        assert_eq!(found(&slot), Some(reviews()), "{cut}");
    }
    assert_eq!(config.stats.local().header_not_found.value(), 0);
}

#[tokio::test]
async fn own_metadata_go_before_the_first_byte() {
    let config = config(&[]);
    let (mut peer, mut stream, _) = exchange(&config).await;
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    peer.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [&config.own[..], b"hello"].concat());
    assert_eq!(wire::header(&all), wire::Header::Of(config.own.len() - wire::HEADER));
    assert_eq!(config.stats.local().metadata_added.value(), 1);
}

/// What a reader gets of a peer that sends this and ends.
async fn read(config: &Arc<Config>, bytes: &[u8]) -> (io::Result<Vec<u8>>, FindingSlot) {
    let (mut peer, mut stream, slot) = exchange(config).await;
    peer.write_all(bytes).await.unwrap();
    peer.shutdown().await.unwrap();
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all).await;
    (read.map(|_| all), slot)
}

#[tokio::test]
async fn a_peer_that_sends_something_else_is_heard_all_the_same() {
    let config = config(&[]);
    for bytes in [&b""[..], b"abc", b"GET / HTTP/1.1\r\n\r\n", &[0; 4096]] {
        let (read, slot) = read(&config, bytes).await;
        assert_eq!(read.unwrap(), bytes);
        assert_eq!(found(&slot), None);
    }
    assert!(config.stats.local().initial_header_not_found.value() >= 4);
}

fn framed(metadata: &[u8]) -> Vec<u8> {
    let length = u32::try_from(metadata.len()).unwrap();
    [&0x3D23_0467_u32.to_be_bytes()[..], &length.to_be_bytes(), metadata].concat()
}

#[tokio::test]
async fn hostile_metadata_cost_no_more_than_the_connection() {
    let config = config(&[]);
    let other_type = Any {
        type_url: "type.googleapis.com/google.protobuf.Duration".into(),
        value: vec![8, 1],
    };
    let nested = (0..300).fold(Struct::default(), |inner, _| {
        let inner = Value {
            kind: Some(Kind::StructValue(inner)),
        };
        Struct {
            fields: [("a".to_owned(), inner)].into(),
        }
    });
    let deep = Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".into(),
        value: encode_sorted(&nested),
    };
    for metadata in [vec![0xff; 100], other_type.encode_to_vec(), deep.encode_to_vec()] {
        let (read, slot) = read(&config, &framed(&metadata)).await;
        assert_eq!(read.unwrap(), metadata);
        assert_eq!(found(&slot), None);
    }
    // Less than was announced.
    let cut = &framed(&[1; 50])[..30];
    assert_eq!(read(&config, cut).await.0.unwrap(), [1; 22]);
    assert_eq!(config.stats.local().header_not_found.value(), 4);
    // More than anybody reads: the connection ends.
    for length in [wire::LONGEST as u32 + 1, u32::MAX] {
        let bytes = [&0x3D23_0467_u32.to_be_bytes()[..], &length.to_be_bytes(), &[0; 100]].concat();
        let (read, slot) = read(&config, &bytes).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(found(&slot), None);
    }
    // Nothing to read, and nothing in it.
    assert_eq!(wire::metadata(&[], &AdditionalLabels::new()), Metadata::Unreadable);
    let empty = Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".into(),
        value: encode_sorted(&Default::default()),
    };
    let nothing = wire::metadata(&empty.encode_to_vec(), &AdditionalLabels::new());
    assert_eq!(nothing, Metadata::Nothing);
}

#[tokio::test]
async fn a_downstream_peer_is_known_before_its_bytes() {
    let config = config(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    let handover = Arc::new(Handover::default());
    let told = Told::Handover(handover.clone());
    let mut stream = Exchange::new(Stream::Tcp(ours), config, Peer::Downstream, None, told);
    let info = ConnectionInfo {
        filter_state: RefCell::default(),
        ..ConnectionInfo::of_nobody()
    };
    peer.write_all(&wire::message(&reviews(), "")).await.unwrap();
    peer.write_all(b"x").await.unwrap();
    let reading = async {
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        let state = info.filter_state.borrow();
        let peer = Peer::Downstream.get(&state).unwrap();
        assert_eq!(peer.workload_name, "reviews-v1");
    };
    tokio::select! {
        () = handover.take(&info) => panic!("it ended"),
        () = reading => {}
    }
}
