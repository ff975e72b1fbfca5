use super::*;

#[test]
fn a_share_and_never_less_than_the_least() {
    let budget = Budget::new(Some(RetryBudget {
        percent: 50.0,
        min_concurrency: 2,
        interval: None,
    }));
    assert_eq!([0, 3, 5, 10].map(|active| budget.max(active)), [2, 2, 2, 5].map(Some));
    assert_eq!(Budget::new(None).max(10), None);
}

#[test]
fn requests_count_for_an_interval() {
    let started = Started::new(Duration::from_secs(1));
    started.add_at(100);
    started.add_at(100);
    started.add_at(105);
    assert_eq!(started.count_at(105), 3);
    assert_eq!(started.count_at(100 + SLICES), 3);
    assert_eq!(started.count_at(101 + SLICES), 1);
    assert_eq!(started.count_at(106 + SLICES), 0);
    // A slot that is used again begins at nothing.
    started.add_at(100 + SLICES + 1);
    assert_eq!(started.count_at(100 + SLICES + 1), 2);
}
