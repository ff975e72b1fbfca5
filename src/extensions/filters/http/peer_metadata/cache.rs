//! Peers by what their headers say: a workload sends the same with every request.
//!
//! The key is the whole value. Who a header says it is from is part of the value, and so nobody can leave something
//! here under another's name.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use xds_protos::{google::protobuf::Struct, prost::Message};

use crate::extensions::common::workload::{WorkloadMetadata, node::AdditionalLabels};

/// Most peers of each half: when the newer is full, the older is forgotten.
const PEERS: usize = 250;

/// The longest value that is kept, in bytes.
const LONGEST: usize = 8 * 1024;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Peers = HashMap<(u64, Box<[u8]>), Arc<WorkloadMetadata>>;

thread_local! {
    static CACHE: RefCell<(Peers, Peers)> = RefCell::default();
}

/// What a filter reads of headers.
pub(super) struct Headers {
    /// Tells the filters of a thread apart: they may ask for different labels.
    id: u64,
    labels: AdditionalLabels,
}

impl Headers {
    pub fn new(labels: AdditionalLabels) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            labels,
        }
    }

    /// The peer that a value of `x-envoy-peer-metadata` tells of; none if it tells nothing that can be read.
    pub fn peer(&self, value: &[u8]) -> Option<Arc<WorkloadMetadata>> {
        if value.is_empty() {
            return None;
        }
        if value.len() > LONGEST {
            return self.read(value);
        }
        let key = (self.id, Box::from(value));
        let known = CACHE.with_borrow(|(new, old)| new.get(&key).or_else(|| old.get(&key)).cloned());
        if let Some(known) = known {
            return Some(known);
        }
        let peer = self.read(value)?;
        CACHE.with_borrow_mut(|(new, old)| {
            if new.len() >= PEERS {
                *old = std::mem::take(new);
            }
            new.insert(key, peer.clone());
        });
        Some(peer)
    }

    fn read(&self, value: &[u8]) -> Option<Arc<WorkloadMetadata>> {
        let bytes = LENIENT.decode(value).ok()?;
        let metadata = Struct::decode(bytes.as_slice()).ok()?;
        Some(Arc::new(WorkloadMetadata::of_struct(&metadata, &self.labels)))
    }
}
