//! The workloads that workload discovery knows, by address: written by control, read by workers without a lock.
//!
//! A mesh has tens of thousands of them and they change one at a time, so they are kept in small parts: a change
//! replaces the parts that it touches.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use arc_swap::ArcSwap;
use xds_protos::istio::workload::Workload;

use super::WorkloadMetadata;

/// Number of parts.
const PARTS: usize = 256;

type Part = HashMap<IpAddr, Entry>;

#[derive(Debug, Clone)]
struct Entry {
    /// Who has the address: an address that has moved on is not taken away with its former owner.
    uid: Arc<str>,
    workload: Arc<WorkloadMetadata>,
}

/// Workloads by address. Empty unless the bootstrap turns workload discovery on.
#[derive(Debug)]
pub struct Workloads(Box<[ArcSwap<Part>]>);

impl Default for Workloads {
    fn default() -> Self {
        let none = Arc::<Part>::default();
        Self((0..PARTS).map(|_| ArcSwap::new(none.clone())).collect())
    }
}

impl Workloads {
    /// The workload at this address.
    pub fn find(&self, address: IpAddr) -> Option<Arc<WorkloadMetadata>> {
        let address = address.to_canonical();
        let part = self.0.get(part_of(address))?.load();
        part.get(&address).map(|entry| entry.workload.clone())
    }

    /// How many addresses are known.
    pub fn total(&self) -> usize {
        self.0.iter().map(|part| part.load().len()).sum()
    }
}

/// Addresses of a part are spread by their last bytes, which differ within a cluster.
fn part_of(address: IpAddr) -> usize {
    let low = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => {
            let [.., a, b] = v6.octets();
            a ^ b
        }
    };
    usize::from(low) % PARTS
}

/// The hand that writes: control has one.
#[derive(Debug, Default)]
pub struct WorkloadIndex(HashMap<Arc<str>, Vec<IpAddr>>);

/// What is to become of one address.
enum Change {
    Set(Entry),
    /// It is no longer this workload's.
    Remove(Arc<str>),
}

impl WorkloadIndex {
    /// Applies changes: `set` by uid, then nothing is left of those in `removed`; with `all`, of those that are not in
    /// `set` either.
    pub fn apply(&mut self, set: Vec<(String, Workload)>, removed: &[String], all: bool, to: &Workloads) {
        let mut changes: BTreeMap<usize, Vec<(IpAddr, Change)>> = BTreeMap::new();
        let mut change = |address, change| changes.entry(part_of(address)).or_default().push((address, change));
        let mut gone: Vec<Arc<str>> = removed.iter().map(|uid| uid.as_str().into()).collect();
        if all {
            let stays: std::collections::HashSet<&str> = set.iter().map(|(uid, _)| uid.as_str()).collect();
            gone.extend(self.0.keys().filter(|uid| !stays.contains(&***uid)).cloned());
        }
        for uid in gone {
            for address in self.0.remove(&uid).into_iter().flatten() {
                change(address, Change::Remove(uid.clone()));
            }
        }
        for (uid, workload) in set {
            let uid: Arc<str> = uid.into();
            let addresses: Vec<IpAddr> = workload.addresses.iter().filter_map(|a| address(a)).collect();
            let workload = Arc::new(WorkloadMetadata::of_workload(&workload));
            for former in self.0.remove(&uid).into_iter().flatten() {
                if !addresses.contains(&former) {
                    change(former, Change::Remove(uid.clone()));
                }
            }
            for address in &addresses {
                let entry = Entry {
                    uid: uid.clone(),
                    workload: workload.clone(),
                };
                change(*address, Change::Set(entry));
            }
            self.0.insert(uid, addresses);
        }
        for (part, changes) in changes {
            let Some(slot) = to.0.get(part) else { continue };
            let mut entries = Part::clone(&slot.load());
            for (address, change) in changes {
                match change {
                    Change::Set(entry) => drop(entries.insert(address, entry)),
                    Change::Remove(uid) => {
                        if entries.get(&address).is_some_and(|e| e.uid == uid) {
                            entries.remove(&address);
                        }
                    }
                }
            }
            slot.store(Arc::new(entries));
        }
    }
}

/// 4 or 16 bytes in network order; others are no address.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, addresses: &[&str]) -> (String, Workload) {
        let bytes = |text: &&str| match text.parse().unwrap() {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let proto = Workload {
            workload_name: name.into(),
            addresses: addresses.iter().map(bytes).chain([vec![1, 2, 3]]).collect(),
            ..Default::default()
        };
        (format!("uid/{name}"), proto)
    }

    fn name(at: &str, in_: &Workloads) -> Option<String> {
        Some(in_.find(at.parse().unwrap())?.workload_name.clone())
    }

    #[test]
    fn workloads_come_change_and_go() {
        let (known, mut index) = (Workloads::default(), WorkloadIndex::default());
        let first = vec![
            workload("a", &["10.0.0.1", "fd00::1"]),
            workload("b", &["10.0.0.2", "10.0.1.2"]),
        ];
        index.apply(first, &[], false, &known);
        assert_eq!(known.total(), 4);
        assert_eq!(name("10.0.0.1", &known).as_deref(), Some("a"));
        assert_eq!(name("fd00::1", &known).as_deref(), Some("a"));
        assert_eq!(name("::ffff:10.0.1.2", &known).as_deref(), Some("b"));
        assert_eq!(name("10.0.0.3", &known), None);

        // Another pod takes an address over before the control plane takes its former owner away.
        index.apply(vec![workload("c", &["10.0.0.2"])], &[], false, &known);
        index.apply(vec![], &["uid/b".into(), "uid/unknown".into()], false, &known);
        assert_eq!(name("10.0.0.2", &known).as_deref(), Some("c"));
        assert_eq!(name("10.0.1.2", &known), None);

        index.apply(vec![workload("a", &["10.0.0.9"])], &[], false, &known);
        assert_eq!(name("10.0.0.1", &known), None);
        assert_eq!(name("10.0.0.9", &known).as_deref(), Some("a"));

        index.apply(vec![workload("d", &["10.0.0.4"])], &[], true, &known);
        assert_eq!(known.total(), 1);
        assert_eq!(name("10.0.0.4", &known).as_deref(), Some("d"));
    }
}
