use bytes::Bytes;
use http_body_util::BodyExt;

use super::*;
use crate::stats::{Stats, Store};

fn replay(parts: &'static [&'static str], limit: u64) -> (Replay, Stats<ClusterStats>) {
    let stats: Stats<ClusterStats> = Store::new(Default::default(), 1).scope("cluster.c.").block();
    let frames = parts
        .iter()
        .map(|p| Ok::<_, BodyError>(Frame::data(Bytes::from_static(p.as_bytes()))));
    let body = Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
    (Replay::new(body, limit, stats.clone()), stats)
}

async fn read(mut body: Body) -> String {
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    text
}

#[tokio::test(flavor = "current_thread")]
async fn two_readers_see_the_same_body() {
    let (replay, _) = replay(&["ab", "cd", "ef"], 100);
    let (mut one, two) = (replay.body(), replay.body());
    assert_eq!(&one.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"ab");
    assert_eq!(read(two).await, "abcdef");
    assert_eq!(read(one).await, "cdef");
}

#[tokio::test(flavor = "current_thread")]
async fn what_is_too_large_is_read_once() {
    let (replay, stats) = replay(&["ab", "cd", "ef"], 5);
    assert_eq!(read(replay.body()).await, "abcdef");
    assert!(replay.abandoned());
    assert_eq!(stats.local().retry_or_shadow_abandoned.value(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn reading_ahead_loses_nothing() {
    let (kept, _) = replay(&["ab", "cd", "ef"], 6);
    assert_eq!(kept.fill().await, Filled::Ended);
    assert_eq!(read(kept.body()).await, "abcdef");
    assert_eq!(read(kept.body()).await, "abcdef");

    let (outgrown, _) = replay(&["ab", "cd", "ef"], 3);
    assert_eq!(outgrown.fill().await, Filled::Outgrown);
    assert_eq!(read(outgrown.body()).await, "abcdef");
}
