//! Several addresses of one endpoint, tried as RFC 8305 has it: the next one is tried when one fails, or after a
//! while beside it, and the first that connects wins.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};

use crate::{net::Address, upstream::ConnectFailure};

/// Envoy's time between attempts.
const STAGGER: Duration = Duration::from_millis(300);

/// The first attempt that succeeds, or else the failure of the last to fail. The other attempts are dropped.
pub(super) async fn race<T, F: Future<Output = Result<T, ConnectFailure>>>(
    addresses: Vec<Address>,
    attempt: impl Fn(Address) -> F,
) -> Result<T, ConnectFailure> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        if let Some(address) = waiting.next() {
            running.push(attempt(address));
        }
        let more = waiting.len() > 0;
        let outcome = tokio::select! {
            outcome = running.next() => outcome,
            () = tokio::time::sleep(STAGGER), if more => continue,
        };
        match outcome {
            Some(Ok(connected)) => return Ok(connected),
            Some(Err(failure)) => failed = Some(failure),
            None => {
                let reason = "no address".into();
                return Err(failed.unwrap_or(ConnectFailure::Local { reason }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
