use std::time::Duration;

use xds_protos::google::protobuf as pb;

use super::*;

#[test]
fn zero_duration_disables() {
    assert_eq!(
        Some(pb::Duration { seconds: 0, nanos: 0 }).enabled_or(Duration::from_secs(5)),
        None
    );
    assert_eq!(None.enabled_or(Duration::from_secs(5)), Some(Duration::from_secs(5)));
}

#[test]
fn fractions_share_one_scale() {
    use xds_protos::envoy::r#type::v3::{FractionalPercent as P, fractional_percent::DenominatorType as D};
    let share = |numerator, d: D| {
        fraction(&P {
            numerator,
            denominator: d as i32,
        })
        .millionths()
    };
    assert_eq!(
        [
            share(50, D::Hundred),
            share(5000, D::TenThousand),
            share(500_000, D::Million)
        ],
        [500_000; 3]
    );
    assert_eq!(share(500, D::Hundred), 1_000_000);
}
