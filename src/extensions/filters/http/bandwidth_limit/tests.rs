use std::time::{Duration, Instant};

use super::bucket::Bucket;

#[test]
fn a_second_is_saved_and_shared() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let bucket = Bucket::new(1000, start);
    assert_eq!(bucket.take(600, at(0)), 600);
    assert_eq!(bucket.take(600, at(0)), 400);
    assert_eq!(bucket.take(600, at(0)), 0);
    assert_eq!(bucket.take(600, at(50)), 50);
    assert_eq!(bucket.take(5000, at(60_000)), 1000);
}
