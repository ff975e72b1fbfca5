//! The `date` of responses: written once a second.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const LENGTH: usize = 29;

thread_local! {
    /// The second that the date was written for, and the date.
    static DATE: Cell<(u64, [u8; LENGTH])> = const { Cell::new((0, [0; LENGTH])) };
    static VALUE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The date of now, as bytes.
pub(super) fn with(write: impl FnOnce(&[u8])) {
    let now = now();
    let (mut second, mut date) = DATE.get();
    if second != now {
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        if let Ok(text) = text.as_bytes().try_into() {
            (second, date) = (now, text);
            DATE.set((second, date));
        }
    }
    write(&date);
}

/// The date of now, as a header.
pub(crate) fn value() -> HeaderValue {
    VALUE.with_borrow_mut(|(second, value)| {
        let now = now();
        if *second != now {
            with(|date| {
                if let Ok(date) = HeaderValue::from_bytes(date) {
                    *value = date;
                    *second = now;
                }
            });
        }
        value.clone()
    })
}
