//! One stream that gets metadata.

use std::{collections::btree_map::Entry as Slot, sync::Arc};

use xds_protos::google::protobuf::{Struct, Value, value::Kind};

use super::Entry;
use crate::{
    http::{
        RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.set_metadata.` statistics
    pub(super) struct SetMetadataStats {
        counter overwrite_denied, "Namespaces that were there already and stay as they are";
    }
}

/// The filter's configuration.
pub(super) struct SetMetadataFilter(pub Arc<Shared>);

pub(super) struct Shared {
    pub entries: Vec<Entry>,
    pub stats: Stats<SetMetadataStats>,
}

impl HttpFilterConfig for SetMetadataFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Shared>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, _: &'a mut RequestHead, _: bool) -> Step<'a> {
        for entry in &self.0.entries {
            match cx.info.metadata.entry(entry.namespace.clone()) {
                Slot::Vacant(slot) => {
                    slot.insert(entry.value.clone());
                }
                Slot::Occupied(mut slot) if entry.overwrite => merge(slot.get_mut(), &entry.value),
                Slot::Occupied(_) => self.0.stats.local().overwrite_denied.inc(),
            }
        }
        Step::Continue
    }
}

/// Merges as Envoy's `StructUtil::update` does: structs field by field, lists end to end, everything else replaced.
pub(super) fn merge(into: &mut Struct, from: &Struct) {
    for (key, value) in &from.fields {
        match into.fields.get_mut(key) {
            Some(old) => merge_value(old, value),
            None => {
                into.fields.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge_value(into: &mut Value, from: &Value) {
    match (&mut into.kind, &from.kind) {
        (Some(Kind::StructValue(into)), Some(Kind::StructValue(from))) => merge(into, from),
        (Some(Kind::ListValue(into)), Some(Kind::ListValue(from))) => {
            into.values.extend(from.values.iter().cloned());
        }
        (into, from) => into.clone_from(from),
    }
}
