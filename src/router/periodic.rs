//! Lines of the access logs while a request waits for the head of its response; those of its body are written by
//! whoever hands it on.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{pending, poll_fn},
    task::Poll,
};

use super::upstream_log::AttemptLog;
use crate::{
    access_log::LogCx,
    http::{RequestHead, filter::FilterCx},
    net::Deadline,
};

/// Writes the lines that `access_log_flush_interval` of the connection manager makes due, for as long as it is polled.
pub(super) async fn of_stream(cx: &RefCell<&mut FilterCx>, head: &RefCell<&mut RequestHead>) -> Infallible {
    let manager = {
        let cx = cx.borrow();
        let manager = cx.informational.manager();
        manager.filter(|m| m.log_moments.interval.is_some()).cloned()
    };
    let Some(manager) = manager else {
        return pending().await;
    };
    let start = cx.borrow().info.start;
    while let Some(at) = manager.log_moments.next(start) {
        Deadline::at(at).await;
        let info = &mut cx.borrow_mut().info;
        info.access_log_type = "DownstreamPeriodic";
        manager.access_log.log(&LogCx {
            request: Some(&**head.borrow()),
            response: None,
            info,
        });
    }
    pending().await
}

/// Writes the lines of an attempt (`upstream_log_flush_interval`), likewise.
pub(super) async fn of_attempt(log: Option<&mut AttemptLog>, cx: &RefCell<&mut FilterCx>) -> Infallible {
    let Some(log) = log else { return pending().await };
    poll_fn(|task| {
        log.poll_due(task, |log| log.note_connection(&cx.borrow().info));
        Poll::Pending
    })
    .await
}
