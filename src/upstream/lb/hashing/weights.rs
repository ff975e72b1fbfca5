//! Weights as shares of the whole: what a table is made of.

use std::sync::Arc;

use crate::upstream::Host;

/// Hosts with their shares, which add up to 1.
#[derive(Debug, Clone, Default)]
pub struct WeightedHosts(Vec<(Arc<Host>, f64)>);

impl WeightedHosts {
    /// By the hosts' weights alone.
    pub fn flat(hosts: &[Arc<Host>]) -> Self {
        Self(shares(hosts, 1.0).collect())
    }

    /// By the hosts' weights within localities that share by theirs. Nobody is left where no locality has a weight.
    pub fn by_locality<'s>(localities: impl Iterator<Item = (u32, &'s [Arc<Host>])> + Clone) -> Self {
        let sum: f64 = localities.clone().map(|(weight, _)| f64::from(weight)).sum();
        let weighted = localities.filter(|(weight, _)| *weight > 0);
        Self(
            weighted
                .flat_map(|(weight, hosts)| shares(hosts, f64::from(weight) / sum))
                .collect(),
        )
    }

    /// The host of an index.
    pub fn host(&self, index: usize) -> Option<&Arc<Host>> {
        self.0.get(index).map(|(host, _)| host)
    }

    /// The share of an index.
    pub fn share(&self, index: usize) -> f64 {
        self.0.get(index).map_or(0.0, |(_, share)| *share)
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<Host>, f64)> {
        self.0.iter().map(|(host, share)| (host, *share))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest share, at most 1.
    pub fn least(&self) -> f64 {
        self.0.iter().map(|(_, share)| *share).fold(1.0, f64::min)
    }

    /// The largest share.
    pub fn greatest(&self) -> f64 {
        self.0.iter().map(|(_, share)| *share).fold(0.0, f64::max)
    }
}

// The order of the operations is Envoy's: a rounding more or less moves keys.
fn shares(hosts: &[Arc<Host>], whole: f64) -> impl Iterator<Item = (Arc<Host>, f64)> {
    let sum: f64 = hosts.iter().map(|h| f64::from(h.weight())).sum();
    hosts
        .iter()
        .map(move |host| (host.clone(), f64::from(host.weight()) * whole / sum))
}
