use super::*;

const LIMITS: Times = Times {
    base: Duration::from_secs(10),
    longest: Duration::from_secs(25),
    jitter: Duration::ZERO,
};

/// How long a penalty that begins now lasts, in whole seconds.
fn length(penalty: &mut Penalty, limits: &Times) -> u64 {
    penalty.begin(limits);
    let began = penalty.began.unwrap();
    (0..100)
        .find(|s| penalty.is_over(limits, began + Duration::from_secs(*s)))
        .unwrap()
}

#[test]
fn each_is_longer_than_the_last_one_up_to_the_longest() {
    let mut penalty = Penalty::default();
    let lengths: Vec<_> = (0..5).map(|_| length(&mut penalty, &LIMITS)).collect();
    assert_eq!(lengths, [10, 20, 25, 25, 25]);
}

#[test]
fn who_behaves_is_forgiven_step_by_step() {
    let mut penalty = Penalty::default();
    assert_eq!((length(&mut penalty, &LIMITS), length(&mut penalty, &LIMITS)), (10, 20));
    penalty.end();
    let ended = penalty.ended.unwrap();
    let interval = Duration::from_secs(1);
    penalty.decay(interval, ended);
    assert_eq!(penalty.times, 2, "no interval has passed");
    penalty.decay(interval, ended + interval);
    assert_eq!(length(&mut penalty, &LIMITS), 20);
    for _ in 0..9 {
        penalty.decay(interval, ended + interval);
    }
    assert_eq!(length(&mut penalty, &LIMITS), 10);
}

#[test]
fn jitter_comes_on_top() {
    let limits = Times {
        jitter: Duration::from_secs(5),
        ..LIMITS
    };
    for _ in 0..50 {
        assert!((10..=15).contains(&length(&mut Penalty::default(), &limits)));
    }
}
