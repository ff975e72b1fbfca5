//! Triggers, levels, timers and classes of streams, without a proxy around them.

use std::{
    task::{Context, Waker},
    time::Duration,
};

use xds_protos::{
    any,
    envoy::{
        config::overload::v3::{
            ScaleTimersOverloadActionConfig,
            scale_timers_overload_action_config::{ScaleTimer, TimerType, scale_timer::OverloadAdjust},
        },
        r#type::v3::Percent,
    },
    google::protobuf,
};

use super::{streams::Account, trigger::Trigger, *};
use crate::config::BuildCx;

fn server() -> Arc<ServerContext> {
    use clap::Parser;
    let cli = crate::cli::Cli::parse_from(["nuncio", "--concurrency", "1"]);
    ServerContext::new(Default::default(), &cli).unwrap()
}

#[test]
fn a_threshold_is_all_or_nothing() {
    let trigger = Trigger::Threshold(0.9);
    assert_eq!([0.0, 0.89, 0.9, 1.5].map(|p| trigger.level(p)), [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn a_scaled_trigger_rises_between_its_thresholds() {
    let trigger = Trigger::Scaled { from: 0.5, to: 0.9 };
    assert_eq!([0.0, 0.5, 0.9, 2.0].map(|p| trigger.level(p)), [0.0, 0.0, 1.0, 1.0]);
    assert!((trigger.level(0.6) - 0.25).abs() < 1e-6);
}

#[test]
fn a_level_happens_as_often_as_it_says() {
    let level = Level::default();
    let share = |level: &Level| (0..10_000).filter(|_| level.happens()).count();
    assert_eq!(share(&level), 0);
    level.set(1.0);
    assert_eq!(share(&level), 10_000);
    level.set(0.25);
    // Ten standard deviations.
    assert!((2_000..3_000).contains(&share(&level)));
}

#[test]
fn connections_are_claimed_up_to_the_limit() {
    let limit = ConnectionLimit::new(2);
    assert!(limit.claim() && limit.claim());
    assert!(!limit.claim());
    assert_eq!(limit.pressure(), 1.0);
    limit.release();
    assert!(limit.claim());
    (0..5).for_each(|_| limit.release());
    assert_eq!(limit.pressure(), 0.0);
}

#[test]
fn timers_shrink_to_their_minimum() {
    let server = server();
    let factor = |timer: TimerType, adjust| ScaleTimer {
        timer: timer as i32,
        overload_adjust: Some(adjust),
    };
    let least = protobuf::Duration { seconds: 2, nanos: 0 };
    let proto = ScaleTimersOverloadActionConfig {
        timer_scale_factors: vec![
            factor(
                TimerType::HttpDownstreamConnectionIdle,
                OverloadAdjust::MinTimeout(least),
            ),
            factor(
                TimerType::HttpDownstreamStreamIdle,
                OverloadAdjust::MinScale(Percent { value: 10.0 }),
            ),
        ],
    };
    let timeouts = Timeouts::build(any::pack(&proto), &mut BuildCx::new(&server)).unwrap();
    let full = Duration::from_secs(10);
    let all = |timeouts: &Timeouts| {
        [
            ScaledTimer::ConnectionIdle,
            ScaledTimer::StreamIdle,
            ScaledTimer::StreamFlush,
        ]
        .map(|timer| timeouts.scaled(timer, full).as_secs_f64())
    };
    assert_eq!(all(&timeouts), [10.0, 10.0, 10.0]);
    timeouts.set(0.5);
    assert_eq!(all(&timeouts), [6.0, 5.5, 10.0]);
    timeouts.set(1.0);
    assert_eq!(all(&timeouts), [2.0, 1.0, 10.0]);
    // The minimum never makes a timer longer.
    let short = Duration::from_secs(1);
    assert_eq!(timeouts.scaled(ScaledTimer::ConnectionIdle, short), short);
}

#[test]
fn the_largest_streams_are_reset_first() {
    let server = server();
    let counter = server.stats.root().counter("reset");
    let classes = MemoryClasses::new(10, counter.clone());
    let after = |level: f32| {
        let open = |bytes: u64| {
            let account = Account::open();
            account.set(bytes);
            account
        };
        let accounts: Vec<_> = [1_023]
            .into_iter()
            .chain((10..19).map(|power| 1 << power))
            .map(open)
            .collect();
        streams::reset(&classes, level);
        let cx = Context::from_waker(Waker::noop());
        accounts
            .iter()
            .map(|a| a.poll_reset(&cx).is_ready())
            .filter(|reset| *reset)
            .count()
    };
    // The two last ones share the highest class, and the first one is too small for any.
    assert_eq!([0.0, 0.5, 1.0].map(after), [2, 6, 9]);
    assert_eq!(counter.value(), 17);
}
