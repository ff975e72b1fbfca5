//! The small extensions of retries and internal redirects, found by the type of their configuration.

use std::sync::Arc;

use xds_protos::{
    envoy::extensions::{
        internal_redirect::{
            allow_listed_routes::v3::AllowListedRoutesConfig, previous_routes::v3::PreviousRoutesConfig,
            safe_cross_scheme::v3::SafeCrossSchemeConfig,
        },
        retry::{
            host::{
                omit_canary_hosts::v3::OmitCanaryHostsPredicate, omit_host_metadata::v3::OmitHostMetadataConfig,
                previous_hosts::v3::PreviousHostsPredicate,
            },
            priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
    },
    google::protobuf::{Any, Struct},
    prost::Name,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    upstream::Host,
};

/// `retry_host_predicate`: hosts that a retry passes over.
#[derive(Debug, Clone)]
pub enum HostPredicate {
    /// `envoy.retry_host_predicates.previous_hosts`
    PreviousHosts,
    /// `envoy.retry_host_predicates.omit_canary_hosts`
    OmitCanaryHosts,
    /// `envoy.retry_host_predicates.omit_host_metadata`: hosts with these values under `envoy.lb`.
    OmitHostMetadata(Box<Struct>),
}

impl HostPredicate {
    pub(super) fn build(name: &str, any: Option<Any>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = plain(any.unwrap_or_default(), cx)?;
        Ok(match any.type_name() {
            kind if kind == PreviousHostsPredicate::full_name() => {
                let PreviousHostsPredicate {} = unpack(&any, cx)?;
                Self::PreviousHosts
            }
            kind if kind == OmitCanaryHostsPredicate::full_name() => {
                let OmitCanaryHostsPredicate {} = unpack(&any, cx)?;
                Self::OmitCanaryHosts
            }
            kind if kind == OmitHostMetadataConfig::full_name() => {
                let proto: OmitHostMetadataConfig = unpack(&any, cx)?;
                coverage!(cx, proto => OmitHostMetadataConfig { supported { metadata_match } });
                let mut filters = metadata_match.unwrap_or_default().filter_metadata;
                Self::OmitHostMetadata(Box::new(filters.remove("envoy.lb").unwrap_or_default()))
            }
            kind => return Err(unknown(name, kind, cx)),
        })
    }

    /// Whether the host is to be passed over; `tried` are those of earlier attempts.
    pub fn rejects(&self, host: &Host, tried: &[Arc<Host>]) -> bool {
        match self {
            Self::PreviousHosts => tried.iter().any(|t| std::ptr::eq(&**t, host)),
            Self::OmitCanaryHosts => host.attributes().canary,
            Self::OmitHostMetadata(wanted) if wanted.fields.is_empty() => true,
            Self::OmitHostMetadata(wanted) => {
                let attributes = host.attributes();
                attributes.metadata.get("envoy.lb").is_some_and(|has| {
                    wanted
                        .fields
                        .iter()
                        .all(|(key, value)| has.fields.get(key) == Some(value))
                })
            }
        }
    }
}

/// `retry_priority` (`envoy.retry_priorities.previous_priorities`): priorities of earlier attempts are avoided.
#[derive(Debug, Clone, Copy)]
pub struct PreviousPriorities {
    /// After how many attempts the priorities to avoid are chosen anew; at least 1.
    pub update_frequency: usize,
}

impl PreviousPriorities {
    pub(super) fn build(name: &str, any: Option<Any>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = plain(any.unwrap_or_default(), cx)?;
        if any.type_name() != PreviousPrioritiesConfig::full_name() {
            return Err(unknown(name, any.type_name(), cx));
        }
        let proto: PreviousPrioritiesConfig = unpack(&any, cx)?;
        coverage!(cx, proto => PreviousPrioritiesConfig { supported { update_frequency } });
        Ok(Self {
            update_frequency: usize::try_from(update_frequency).unwrap_or(1).max(1),
        })
    }

    /// The priorities to avoid after attempts at these hosts. `others` tells whether any hosts are left when these
    /// priorities are avoided: when there are none, it starts from the beginning.
    pub fn avoid(
        &self,
        tried: &[Arc<Host>],
        priority_of: impl Fn(&Arc<Host>) -> u32,
        others: impl Fn(&[u32]) -> bool,
    ) -> Vec<u32> {
        let (mut attempted, mut avoided) = (Vec::new(), Vec::new());
        for host in tried {
            attempted.push(priority_of(host));
            if attempted.len() % self.update_frequency == 0 {
                avoided.clone_from(&attempted);
                if !others(&avoided) {
                    attempted.clear();
                    avoided.clear();
                }
            }
        }
        avoided
    }
}

/// A predicate of internal redirects: where one may lead.
#[derive(Debug, Clone)]
pub enum RedirectPredicate {
    /// `previous_routes`: a route may lead to each other route once.
    PreviousRoutes,
    /// `allow_listed_routes`: routes of these names.
    AllowListedRoutes(Vec<String>),
    /// `safe_cross_scheme`: not from http to https.
    SafeCrossScheme,
}

impl RedirectPredicate {
    pub(super) fn build(name: &str, any: Option<Any>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = plain(any.unwrap_or_default(), cx)?;
        Ok(match any.type_name() {
            kind if kind == PreviousRoutesConfig::full_name() => {
                let PreviousRoutesConfig {} = unpack(&any, cx)?;
                Self::PreviousRoutes
            }
            kind if kind == AllowListedRoutesConfig::full_name() => {
                let proto: AllowListedRoutesConfig = unpack(&any, cx)?;
                coverage!(cx, proto => AllowListedRoutesConfig { supported { allowed_route_names } });
                Self::AllowListedRoutes(allowed_route_names)
            }
            kind if kind == SafeCrossSchemeConfig::full_name() => {
                let SafeCrossSchemeConfig {} = unpack(&any, cx)?;
                Self::SafeCrossScheme
            }
            kind => return Err(unknown(name, kind, cx)),
        })
    }
}

pub(super) fn unknown(name: &str, kind: &str, cx: &BuildCx<'_>) -> crate::config::ConfigError {
    cx.error(format!(
        "Didn't find a registered implementation for '{name}' with type URL: '{kind}'"
    ))
}
