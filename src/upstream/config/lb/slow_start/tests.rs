use super::*;

fn slow_start(aggression: Option<f64>) -> SlowStart {
    let server = crate::upstream::tests::server();
    let aggression = aggression.map(|default_value| ProtoDouble {
        default_value,
        runtime_key: "x".into(),
    });
    let window = Some(Duration { seconds: 10, nanos: 0 });
    SlowStart::of(window, aggression, None, &mut BuildCx::new(&server))
        .unwrap()
        .unwrap()
}

#[test]
fn the_weight_grows_over_the_window() {
    let linear = slow_start(None);
    assert_eq!(linear.factor(0), 0.1, "the least weight");
    assert_eq!(linear.factor(2_500), 0.25);
    assert_eq!(linear.factor(10_000), 1.0);
    assert_eq!(slow_start(Some(2.0)).factor(2_500), 0.5);
}
