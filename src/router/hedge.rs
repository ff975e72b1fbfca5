//! Hedging (`hedge_on_per_try_timeout`): an attempt past its time goes on, and the next one runs beside it. The first
//! good answer counts; a bad one only when nothing else is on its way.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use tokio::time::Sleep;

use super::{
    attempt::{self, Answer},
    body::Bodies,
    failure::Failure,
    forward::{Ended, charge_attempt, count_host, leave, note_failure, report, start_again, timed_out},
    periodic,
    request::Request,
    retry::{Again, Retry, Verdict},
    timeout,
    upstream_log::AttemptLog,
};
use crate::{
    http::{Flag, LocalReply, RequestHead, filter::FilterCx},
    upstream::{Guard, Host, UpstreamFailure},
};

type Outcome = Result<Box<Answer>, Failure>;

/// An attempt on its way.
struct Running<'r> {
    future: Pin<Box<dyn Future<Output = Outcome> + 'r>>,
    host: Arc<Host>,
    log: Option<Box<AttemptLog>>,
    /// Set by the attempt when it is past its time.
    late: Rc<Cell<bool>>,
    /// Outlier detection knows that it is late.
    reported: bool,
    /// Another was started because it is late: it is not the reason of yet another.
    retried: bool,
    /// Its place in the circuit breaker of retries.
    _held: Option<Guard>,
}

/// A retry that waits.
struct Waiting {
    timer: Pin<Box<Sleep>>,
    again: Again,
    timed_out: bool,
}

enum Event {
    Ended(usize, Outcome),
    Late(usize),
    Start,
    Expired,
    Outgrown,
}

/// Attempts beside each other, until one counts.
pub(super) async fn run(
    request: &Request<'_>,
    cx: &mut FilterCx,
    head: &mut RequestHead,
    host: Arc<Host>,
    bodies: &Bodies,
    retry: &mut Retry<'_>,
) -> Result<Ended, Box<LocalReply>> {
    let limit = request.limits.global;
    let mut expired = pin!(timeout::expire(limit, None, cx.info.progress.clone()));
    let progress = cx.info.progress.clone();
    let (shared, head) = (RefCell::new(cx), RefCell::new(head));
    let start = |host: Arc<Host>, held: Option<Guard>| {
        let keep_original = !request.config.suppress_envoy_headers;
        request
            .route
            .rewrite_host(&mut head.borrow_mut(), &host.hostname, keep_original);
        let late = Rc::new(Cell::new(false));
        let (to, told, shared, head) = (host.clone(), late.clone(), &shared, &head);
        Running {
            log: AttemptLog::start(request.config, &mut head.borrow_mut(), &shared.borrow()),
            future: Box::pin(async move { attempt::run(request, shared, head, &to, bodies, Some(&told)).await }),
            host,
            late,
            reported: false,
            retried: false,
            _held: held,
        }
    };
    let mut running = vec![start(host, None)];
    let mut waiting: Option<Waiting> = None;
    let mut logging = pin!(periodic::of_stream(&shared, &head));
    loop {
        let alone = running.is_empty();
        let mut outgrown = pin!(async {
            match alone {
                true => bodies.outgrown().await,
                false => std::future::pending().await,
            }
        });
        let event = poll_fn(|task| {
            for (i, attempt) in running.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = attempt.future.as_mut().poll(task) {
                    return Poll::Ready(Event::Ended(i, outcome));
                }
                if attempt.late.take() {
                    return Poll::Ready(Event::Late(i));
                }
            }
            if waiting.as_mut().is_some_and(|w| w.timer.as_mut().poll(task).is_ready()) {
                return Poll::Ready(Event::Start);
            }
            if expired.as_mut().poll(task).is_ready() {
                return Poll::Ready(Event::Expired);
            }
            for attempt in &mut running {
                if let Some(log) = &mut attempt.log {
                    log.poll_due(task, |log| log.note_connection(&shared.borrow().info));
                }
            }
            if let Poll::Ready(never) = logging.as_mut().poll(task) {
                match never {}
            }
            outgrown.as_mut().poll(task).map(|()| Event::Outgrown)
        })
        .await;
        let attempts = shared.borrow().info.upstream.attempts;
        match event {
            Event::Start => {
                let Some(Waiting { again, timed_out, .. }) = waiting.take() else {
                    continue;
                };
                request.count_retry(&again);
                let host = start_again(request, &mut shared.borrow_mut(), &mut head.borrow_mut(), timed_out)?;
                running.push(start(host, Some(again.guard)));
            }
            Event::Late(i) => {
                let attempt = &mut running[i];
                request.cluster.report(&attempt.host, timed_out(request));
                attempt.reported = true;
                if !retry.enabled() || bodies.abandoned() || request.informed.get() {
                    continue;
                }
                let verdict = retry.on_late(&request.cluster.info, request.priority);
                request.count_verdict(&verdict, attempts);
                match verdict {
                    Verdict::Again(again) => {
                        attempt.retried = true;
                        request.tried.borrow_mut().push(attempt.host.clone());
                        waiting = Some(Waiting::new(again, true));
                    }
                    other => flag(&other, &mut shared.borrow_mut()),
                }
            }
            Event::Ended(i, result) => {
                let mut ended = running.remove(i);
                if let Err(Failure::Upstream(UpstreamFailure::RequestBody(_))) = &result {
                    leave(&progress).await;
                }
                let cx = &mut *shared.borrow_mut();
                if let Some(log) = &mut ended.log {
                    log.note(cx, &result);
                }
                if !ended.reported || result.is_ok() {
                    report(request, &ended.host, &result);
                }
                if let Err(failure) = &result {
                    if let Failure::NoPool = failure {
                        cx.info.upstream.host = None;
                        return Err(request.no_healthy_upstream(cx));
                    }
                    note_failure(failure, cx, request.cluster, &ended.host);
                }
                let verdict = judge(request, bodies, retry, &ended, &result);
                request.count_verdict(&verdict, attempts);
                let bad = match verdict {
                    Verdict::Again(again) => {
                        if let Ok(answer) = &result {
                            charge_attempt(request, &ended.host, answer.head.status);
                        }
                        request.tried.borrow_mut().push(ended.host);
                        waiting = Some(Waiting::new(again, false));
                        continue;
                    }
                    Verdict::Done => result.is_err(),
                    Verdict::Final => match &result {
                        Ok(answer) => ended.retried && retry.wants_response(&answer.head),
                        Err(_) => true,
                    },
                    other => {
                        flag(&other, cx);
                        true
                    }
                };
                if bad && (!running.is_empty() || waiting.is_some()) {
                    match &result {
                        Ok(answer) => count_host(&ended.host, answer.head.status),
                        Err(failure) => {
                            let reply = request.reply(failure, cx);
                            request.charge_failure(failure, reply.status, Some(&ended.host));
                        }
                    }
                    continue;
                }
                cx.info.upstream.host = Some(ended.host.clone());
                return Ok(Ended {
                    result,
                    host: ended.host,
                    log: ended.log,
                });
            }
            Event::Expired => {
                let cx = &mut *shared.borrow_mut();
                let reply = request.reply(&Failure::Timeout, cx);
                for attempt in running {
                    note_failure(&Failure::Timeout, cx, request.cluster, &attempt.host);
                    request.count(|stats| &stats.upstream_rq_timeout);
                    if !attempt.reported {
                        request.cluster.report(&attempt.host, timed_out(request));
                    }
                    request.charge_failure(&Failure::Timeout, reply.status, Some(&attempt.host));
                }
                return Err(Box::new(reply));
            }
            Event::Outgrown => return Err(request.outgrown(&shared.borrow())),
        }
    }
}

impl Waiting {
    fn new(again: Again, timed_out: bool) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(again.wait)),
            again,
            timed_out,
        }
    }
}

/// Whether what an attempt came to is tried again.
fn judge(
    request: &Request<'_>,
    bodies: &Bodies,
    retry: &mut Retry<'_>,
    ended: &Running<'_>,
    result: &Outcome,
) -> Verdict {
    match result {
        _ if ended.retried || bodies.abandoned() || request.informed.get() => Verdict::Final,
        Ok(answer) if answer.local.is_some() => Verdict::Final,
        Ok(answer) => retry.on_response(&answer.head, &request.cluster.info, request.priority),
        Err(failure) => retry.on_failure(failure, &request.cluster.info, request.priority),
    }
}

fn flag(verdict: &Verdict, cx: &mut FilterCx) {
    match verdict {
        Verdict::LimitExceeded => cx.info.flags.set(Flag::UpstreamRetryLimitExceeded),
        Verdict::Overflow => cx.info.flags.set(Flag::UpstreamOverflow),
        Verdict::Done | Verdict::Final | Verdict::Again(_) => {}
    }
}
