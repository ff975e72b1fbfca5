use super::*;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

fn notes() -> usize {
    NOTES.with_borrow(|notes| notes.notes.len())
}

#[test]
fn never_early_far_or_near() {
    run(async {
        for millis in [1, 50, 700] {
            let time = Duration::from_millis(millis);
            let start = Instant::now();
            Deadline::after(time).await;
            assert!(start.elapsed() >= time);
        }
        assert_eq!(notes(), 0);
    });
}

#[test]
fn what_is_not_waited_for_leaves_nothing() {
    run(async {
        let far = Duration::from_secs(3600);
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = Deadline::after(far) => panic!("an hour has not passed"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(notes(), 0);
    });
}

#[test]
fn a_deadline_may_be_moved_to_another_task() {
    run(tokio::task::LocalSet::new().run_until(async {
        let mut deadline = Box::pin(Deadline::after(Duration::from_millis(500)));
        assert!(futures_util::poll!(deadline.as_mut()).is_pending());
        tokio::task::spawn_local(deadline).await.unwrap();
    }));
}

#[test]
fn a_second_runtime_on_the_same_thread_ticks_too() {
    for _ in 0..2 {
        run(async {
            let mut left = Box::pin(Deadline::after(Duration::from_secs(3600)));
            assert!(futures_util::poll!(left.as_mut()).is_pending());
            Deadline::after(Duration::from_millis(400)).await;
        });
    }
}
