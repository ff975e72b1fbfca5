//! Ports for the proxies' own listeners. A proxy binds them some time after they were chosen, so
//! they come from below the kernel's ephemeral range, where no connection of anybody takes one.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// A port of 127.0.0.1 that nobody listens on now and that this process gives out once.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at the same time start at different places.
    let span = LAST - FIRST;
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.subsec_nanos())
        .unwrap_or(0);
    let start = ((nanos / 1000) ^ std::process::id().wrapping_mul(7919)) % u32::from(span);
    let _ = NEXT.compare_exchange(0, FIRST + start as u16, Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..span {
        let port = NEXT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |p| {
                Some(if p >= LAST { FIRST } else { p + 1 })
            })
            .unwrap_or(FIRST);
        // Ports are replaced by names in what is compared: a number that means something else there must be none.
        if port.is_multiple_of(100) || port.is_power_of_two() {
            continue;
        }
        let local = ("127.0.0.1", port);
        if TcpListener::bind(local).is_ok() && UdpSocket::bind(local).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {LAST}")
}
