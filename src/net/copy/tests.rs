use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn pair(size: usize) -> (Stream, DuplexStream) {
    let (near, far) = duplex(size);
    (Stream::Other(Box::pin(near)), far)
}

#[tokio::test]
async fn what_came_early_goes_first() {
    let ((a, mut client), (b, mut server)) = (pair(64), pair(64));
    let mut copying = Copying::new(a, b).with_early(b"early ".to_vec(), false);
    let progress = CopyProgress::default();
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    let upstream = async {
        let mut seen = String::new();
        server.read_to_string(&mut seen).await.unwrap();
        server.shutdown().await.unwrap();
        seen
    };
    let (end, seen) = tokio::join!(copying.run(&progress), upstream);
    assert_eq!(seen, "early late");
    assert_eq!(end, CopyEnd::Finished { second_first: false });
    assert_eq!(progress.forward.get(), 10);
}

#[tokio::test]
async fn an_early_end_is_passed_on() {
    let ((a, _client), (b, mut server)) = (pair(64), pair(64));
    let mut copying = Copying::new(a, b).with_early(b"all".to_vec(), true);
    let progress = CopyProgress::default();
    let upstream = async {
        let mut seen = String::new();
        server.read_to_string(&mut seen).await.unwrap();
        drop(server);
        seen
    };
    let (_, seen) = tokio::join!(copying.run(&progress), upstream);
    assert_eq!(seen, "all");
}

#[tokio::test]
async fn who_was_done_first_is_told() {
    let ((a, mut client), (b, mut server)) = (pair(64), pair(64));
    let mut copying = Copying::new(a, b);
    let progress = CopyProgress::default();
    server.shutdown().await.unwrap();
    let downstream = async {
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let (end, ()) = tokio::join!(copying.run(&progress), downstream);
    assert_eq!(end, CopyEnd::Finished { second_first: true });
}

#[tokio::test]
async fn what_is_left_can_be_sent_on() {
    // The upstream takes four bytes at a time, and the client is gone before it has taken them.
    let ((a, client), (b, mut server)) = (pair(64), pair(4));
    let mut copying = Copying::new(a, b).with_early(b"twelve bytes".to_vec(), false);
    let progress = CopyProgress::default();
    tokio::select! {
        biased;
        _ = copying.run(&progress) => panic!("it has not ended"),
        () = std::future::ready(()) => {}
    }
    drop(client);
    assert_eq!(progress.forward.get(), 4);
    assert_eq!(copying.left_for_second(), 8);
    let upstream = async {
        let mut seen = String::new();
        server.read_to_string(&mut seen).await.unwrap();
        seen
    };
    let ((sent, timed_out), seen) = tokio::join!(copying.into_second().flush(None, true), upstream);
    assert_eq!((sent, timed_out), (8, false));
    assert_eq!(seen, "twelve bytes");
}

#[tokio::test]
async fn who_takes_nothing_more_is_given_up() {
    let ((a, _client), (b, _server)) = (pair(64), pair(4));
    let mut copying = Copying::new(a, b).with_early(b"twelve bytes".to_vec(), false);
    let progress = CopyProgress::default();
    tokio::select! {
        biased;
        _ = copying.run(&progress) => panic!("it has not ended"),
        () = std::future::ready(()) => {}
    }
    let idle = Some(Duration::from_millis(20));
    assert_eq!(copying.into_second().flush(idle, true).await, (0, true));
}
