//! What came for each resource and what was refused: versions, times and `UpdateFailureState` for `/config_dump`
//! and CSDS.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use xds_protos::{envoy::admin::v3::UpdateFailureState, google::protobuf as pb};

use super::handler::{Rejected, Resource};

/// The last refusal of a resource, until a version of it is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The resource that was refused.
    pub resource: pb::Any,
    /// The version that was attempted.
    pub version: String,
    /// Why, as the NACK says it.
    pub details: String,
    /// When.
    pub time: SystemTime,
}

impl Failure {
    /// As `/config_dump` shows it (`error_state`).
    pub fn to_proto(&self) -> UpdateFailureState {
        UpdateFailureState {
            failed_configuration: Some(self.resource.clone()),
            last_update_attempt: Some(timestamp(self.time)),
            details: self.details.clone(),
            version_info: self.version.clone(),
        }
    }
}

/// What is known of one resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceState {
    /// The version applied last; empty before the first.
    pub version: String,
    /// When it was applied.
    pub last_updated: Option<SystemTime>,
    /// The refusal that came after it, if one did.
    pub error: Option<Failure>,
}

/// All resources by type URL and name.
#[derive(Default)]
pub struct Inventory(Mutex<BTreeMap<String, BTreeMap<String, ResourceState>>>);

impl Inventory {
    /// The resources of a type that came from control planes, by name.
    pub fn resources(&self, type_url: &str) -> BTreeMap<String, ResourceState> {
        self.lock().get(type_url).cloned().unwrap_or_default()
    }

    /// The newest version of a type, as the head of its `/config_dump` section shows it; empty before the first.
    pub fn version(&self, type_url: &str) -> String {
        let newest = self.lock().get(type_url).and_then(|all| {
            all.values()
                .filter(|s| s.last_updated.is_some())
                .max_by_key(|s| s.last_updated)
                .map(|s| s.version.clone())
        });
        newest.unwrap_or_default()
    }

    /// One resource.
    pub fn resource(&self, type_url: &str, name: &str) -> Option<ResourceState> {
        self.lock().get(type_url)?.get(name).cloned()
    }

    /// Notes what became of an update; `full` when what is not in it is gone.
    pub(super) fn note<'a>(
        &self,
        type_url: &str,
        added: impl Iterator<Item = &'a Resource>,
        removed: &[String],
        rejected: &[Rejected],
        full: bool,
    ) {
        let now = SystemTime::now();
        let mut all = self.lock();
        let of_type = all.entry(type_url.to_owned()).or_default();
        let mut seen = BTreeSet::new();
        for resource in added {
            seen.insert(resource.name.as_str());
            let state = of_type.entry(resource.name.clone()).or_default();
            match rejected.iter().find(|r| r.name == resource.name) {
                Some(rejection) => {
                    state.error = Some(Failure {
                        resource: resource.any.clone(),
                        version: resource.version.clone(),
                        details: rejection.reason.clone(),
                        time: now,
                    });
                }
                None => {
                    *state = ResourceState {
                        version: resource.version.clone(),
                        last_updated: Some(now),
                        error: None,
                    }
                }
            }
        }
        for name in removed {
            of_type.remove(name);
        }
        // On the word of a response that was refused nothing is taken to be gone.
        if full && rejected.is_empty() {
            of_type.retain(|name, _| seen.contains(name.as_str()));
        }
    }

    /// Forgets a resource nobody watches any longer.
    pub(super) fn forget(&self, type_url: &str, name: &str) {
        if let Some(of_type) = self.lock().get_mut(type_url) {
            of_type.remove(name);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeMap<String, ResourceState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A protobuf timestamp; times before 1970 become 1970.
pub fn timestamp(time: SystemTime) -> pb::Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    pb::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}
