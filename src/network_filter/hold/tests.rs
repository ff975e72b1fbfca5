use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, Stream::Tcp(server))
}

#[tokio::test]
async fn bytes_wait_for_the_decision() {
    let (mut client, server) = pair().await;
    let (mut stream, hold) = hold(server, &Arc::default());
    client.write_all(b"first").await.unwrap();
    let mut buffer = [0; 16];
    tokio::select! {
        biased;
        read = stream.read(&mut buffer) => panic!("read {read:?}"),
        () = hold.bytes() => {}
    }
    hold.pass();
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 5);
    client.write_all(b"second").await.unwrap();
    tokio::select! {
        biased;
        read = stream.read(&mut buffer) => panic!("read {read:?}"),
        () = hold.bytes() => {}
    }
    hold.open();
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 6);
    client.write_all(b"third").await.unwrap();
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 5);
}

#[tokio::test]
async fn an_end_waits_too() {
    let (client, server) = pair().await;
    let (mut stream, hold) = hold(server, &Arc::default());
    drop(client);
    tokio::select! {
        biased;
        read = stream.read_u8() => panic!("read {read:?}"),
        () = hold.bytes() => {}
    }
    hold.pass();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn writes_pass_at_once() {
    let (mut client, server) = pair().await;
    let (mut stream, _hold) = hold(server, &Arc::default());
    stream.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello");
}
