//! Resources as they come on the wire: named, out of their wrapper, of the type they should be.

use std::time::Duration;

use xds_protos::{
    any,
    envoy::service::discovery::v3::Resource as Wrapper,
    google::protobuf::{self as pb, Any},
    istio::workload::Workload,
    prost::Message,
};

use super::{
    handler::{Rejected, Resource},
    resources::workloads,
};
use crate::config::duration;

/// What a response's resources were decoded to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decoded {
    /// In the order they came.
    pub resources: Vec<Resource>,
    /// Renewed time to live of resources that did not change.
    pub heartbeats: Vec<Heartbeat>,
    /// Those that could not be read.
    pub rejected: Vec<Rejected>,
}

/// A wrapper without a resource: it only renews the time to live.
#[derive(Debug, PartialEq)]
pub(super) struct Heartbeat {
    pub name: String,
    pub version: String,
    pub ttl: Option<Duration>,
}

// Every xDS resource has its name in field 1, whatever the field is called.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// Decodes a state-of-the-world response's resources; each may stand in a `Resource` wrapper.
pub(super) fn decode_all(type_url: &str, resources: Vec<Any>, version: &str) -> Decoded {
    let mut decoded = Decoded::default();
    for any in resources {
        if any::is::<Wrapper>(&any) && any::type_name(type_url) != any::type_name(&any.type_url) {
            match any::decode::<Wrapper>(&any) {
                Ok(wrapper) => decode_wrapped(type_url, wrapper, version, &mut decoded),
                Err(error) => decoded.rejected.push(Rejected {
                    name: String::new(),
                    reason: error.to_string(),
                }),
            }
            continue;
        }
        match name(type_url, &any) {
            Ok(name) => decoded.resources.push(Resource {
                name,
                version: version.to_owned(),
                any,
                ttl: None,
            }),
            Err(rejected) => decoded.rejected.push(rejected),
        }
    }
    decoded
}

/// Decodes one wrapped resource into `decoded`; without a version of its own it has `version`.
pub(super) fn decode_wrapped(type_url: &str, wrapper: Wrapper, version: &str, decoded: &mut Decoded) {
    let ttl = wrapper.ttl.as_ref().map(positive);
    let version = if wrapper.version.is_empty() {
        version.to_owned()
    } else {
        wrapper.version
    };
    let Some(any) = wrapper.resource else {
        // An alias that leads nowhere has neither resource nor use (VHDS).
        if wrapper.aliases.is_empty() {
            decoded.heartbeats.push(Heartbeat {
                name: wrapper.name,
                version,
                ttl,
            });
        }
        return;
    };
    let inner = match name(type_url, &any) {
        Ok(inner) => inner,
        Err(mut rejected) => {
            rejected.name = wrapper.name;
            decoded.rejected.push(rejected);
            return;
        }
    };
    decoded.resources.push(Resource {
        name: if wrapper.name.is_empty() { inner } else { wrapper.name },
        version,
        any,
        ttl,
    });
}

fn positive(ttl: &pb::Duration) -> Duration {
    duration(ttl)
}

fn name(type_url: &str, any: &Any) -> Result<String, Rejected> {
    if any::type_name(&any.type_url) != any::type_name(type_url) {
        return Err(Rejected {
            name: String::new(),
            reason: format!(
                "{} does not match the message-wide type URL {type_url} in DiscoveryResponse",
                any.type_url
            ),
        });
    }
    if any::is::<Workload>(any) {
        return Ok(workloads::name(&any.value).unwrap_or_default());
    }
    match Named::decode(any.value.as_slice()) {
        Ok(named) => Ok(named.name),
        Err(error) => Err(Rejected {
            name: String::new(),
            reason: format!("Unable to unpack as {}: {error}", any::type_name(type_url)),
        }),
    }
}

/// Envoy's cap on the length of a NACK's text.
const MAX_DETAIL: usize = 4096;

/// A NACK's text: Envoy's words for the type, every rejected resource by name, cut to Envoy's length.
pub(super) fn error_detail(type_url: &str, rejected: &[Rejected]) -> String {
    let named = |r: &Rejected| {
        if r.name.is_empty() || r.reason.contains(&r.name) && rejected.len() == 1 {
            r.reason.clone()
        } else {
            format!("{}: {}", r.name, r.reason)
        }
    };
    let always_named = |r: &Rejected| format!("{}: {}", r.name, r.reason);
    let mut text = match any::type_name(type_url) {
        "envoy.config.cluster.v3.Cluster" => {
            let all: Vec<_> = rejected.iter().map(always_named).collect();
            format!("Error adding/updating cluster(s) {}", all.join(", "))
        }
        "envoy.config.listener.v3.Listener" => {
            let all: String = rejected.iter().map(|r| always_named(r) + "\n").collect();
            format!("Error adding/updating listener(s) {all}")
        }
        _ => rejected.iter().map(named).collect::<Vec<_>>().join("\n"),
    };
    if text.len() > MAX_DETAIL {
        let end = (0..=MAX_DETAIL).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...(truncated)");
    }
    text
}

#[cfg(test)]
mod tests;
