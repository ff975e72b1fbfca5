//! Upstreams that are killed, hung, reset and slowed while requests run at a steady rate, through both proxies in turn.
//!
//! Every body tells which request it belongs to, so a wrong or a cut answer that poses as a whole one is seen at once:
//! there must be none. Failures are counted by kind, and nuncio may not fail more than Envoy does under the same evil.
//!
//! ```text
//! upstream  backends whose mood changes while they serve      load      the clients and what they insist on
//! setup     one bootstrap: a route and cluster per setting    verdict   the table, and what is too much
//! ```

mod load;
mod setup;
mod upstream;
mod verdict;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::{
    load::Load,
    setup::{HOSTS, SETTINGS},
    upstream::{Backend, Mood},
    verdict::{Tally, Verdict},
};
use crate::{config, ports, proxy::Proxy, suite::Options};

/// How long a mood lasts at least.
const SHORTEST: Duration = Duration::from_millis(1500);

/// Runs every mood for its share of `seconds` through both proxies, with `rate` requests a second over all settings
/// together. True if nuncio did no worse than Envoy.
pub async fn run(options: &Options, rate: u32, seconds: u64) -> Result<bool> {
    let nuncio = options.nuncio.as_ref().context("there is no nuncio")?;
    let share = Duration::from_secs(seconds) / Mood::EVIL.len() as u32;
    let share = share.max(SHORTEST);
    let scratch = tempfile::TempDir::new()?;
    println!("{rate} requests a second, {share:.1?} of each mood; failures by status and response flag");
    let envoy = through(&options.envoy, &scratch.path().join("envoy"), rate, share).await?;
    let ours = through(nuncio, &scratch.path().join("nuncio"), rate, share).await?;
    let verdict = Verdict::of(&envoy, &ours);
    print!("{verdict}");
    Ok(verdict.is_good())
}

/// One proxy and every mood; what became of its requests, in the order of moods and settings.
async fn through(binary: &Path, dir: &Path, rate: u32, share: Duration) -> Result<Vec<Tally>> {
    std::fs::create_dir_all(dir)?;
    let mut backends = Vec::new();
    for h2 in [false, true] {
        for _ in 0..HOSTS {
            backends.push(Backend::start(h2).await?);
        }
    }
    let (admin, port) = (ports::free()?, ports::free()?);
    let path = dir.join("bootstrap.json");
    let addresses: Vec<u16> = backends.iter().map(|b| b.port).collect();
    config::write(
        &setup::bootstrap(admin, port, &addresses, &dir.join("access.log")),
        &path,
    )?;
    let mut proxy = Proxy::start(binary, &path, admin, &Default::default()).await?;
    let mut tallies = Vec::new();
    for mood in Mood::EVIL {
        let mut load = Load::start(port, rate.max(1), SETTINGS.len());
        // A third of the hosts turns evil in the middle of it all, and comes to its senses before the end.
        let begun = Instant::now();
        tokio::time::sleep(share / 5).await;
        for at in [0, HOSTS] {
            backends[at].set(mood).await?;
        }
        tokio::time::sleep(share * 3 / 5).await;
        for at in [0, HOSTS] {
            backends[at].set(Mood::Well).await?;
        }
        tokio::time::sleep(share.saturating_sub(begun.elapsed())).await;
        let outcomes = load.finish().await;
        tallies.extend(verdict::tally(mood, outcomes));
        anyhow::ensure!(proxy.is_running(), "it died under {mood:?}: {}", proxy.complaint());
    }
    Ok(tallies)
}
