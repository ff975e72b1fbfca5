//! What Istio knows of a workload, and hands from proxy to proxy so that telemetry can name both ends of a request.
//!
//! It comes in four forms: the node metadata that the agent gives its proxy ([`node`]), the `baggage` header
//! ([`baggage`](mod@baggage)), an endpoint's `istio.workload` metadata, and a resource of workload discovery. Whoever
//! finds out about a peer leaves it in filter state ([`peer`](mod@peer)), where `istio.stats`, access logs and
//! expressions read it.

pub mod address;
pub mod baggage;
pub mod discovered;
pub mod node;
pub mod peer;

use std::fmt;

use xds_protos::{
    google::protobuf::{Struct, Value, value::Kind},
    istio::workload::{Workload, WorkloadType as ProtoType},
};

pub use discovered::{WorkloadIndex, Workloads};
pub use peer::{FoundPeer, Peer, PeerObject};

/// What made a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkloadType {
    /// Not told.
    #[default]
    Unknown,
    /// A pod of its own.
    Pod,
    /// A Deployment.
    Deployment,
    /// A Job.
    Job,
    /// A CronJob.
    CronJob,
}

impl WorkloadType {
    const NAMED: [(Self, &str); 4] = [
        (Self::Pod, "pod"),
        (Self::Deployment, "deployment"),
        (Self::Job, "job"),
        (Self::CronJob, "cronjob"),
    ];

    /// Istio's word for it; none for one that is not known.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(t, _)| *t == self).map(|(_, name)| *name)
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Self {
        Self::NAMED
            .iter()
            .find(|(_, known)| *known == name)
            .map_or(Self::Unknown, |(t, _)| *t)
    }
}

/// A workload as telemetry sees it. A text that is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkloadMetadata {
    /// Name of the pod.
    pub instance_name: String,
    /// The Kubernetes cluster it runs in.
    pub cluster_name: String,
    /// Its namespace.
    pub namespace_name: String,
    /// Name of what made it: the Deployment, for one.
    pub workload_name: String,
    /// The service it is counted under.
    pub canonical_name: String,
    /// The version of that service.
    pub canonical_revision: String,
    /// The label `app`, or its qualified form.
    pub app_name: String,
    /// The label `version`, or its qualified form.
    pub app_version: String,
    /// What made it.
    pub workload_type: WorkloadType,
    /// Its principal: `spiffe://..`.
    pub identity: String,
    /// Its region.
    pub region: String,
    /// Its availability zone.
    pub zone: String,
    /// The labels that were asked for besides, by name.
    pub labels: Vec<(String, String)>,
}

impl WorkloadMetadata {
    /// One field by the name that logs and expressions use; none for a name that is no field.
    pub fn field(&self, name: &str) -> Option<&str> {
        Some(match name {
            "namespace" => &self.namespace_name,
            "cluster" => &self.cluster_name,
            "service" => &self.canonical_name,
            "revision" => &self.canonical_revision,
            "app" => &self.app_name,
            "version" => &self.app_version,
            "workload" => &self.workload_name,
            "type" => self.workload_type.name().unwrap_or("unknown"),
            "name" => &self.instance_name,
            "region" => &self.region,
            "availability_zone" => &self.zone,
            _ => return None,
        })
    }

    /// The fields that are known, in Istio's order, but for the identity and the labels.
    fn known(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("type", self.workload_type.name().unwrap_or_default()),
            ("workload", &self.workload_name),
            ("name", &self.instance_name),
            ("cluster", &self.cluster_name),
            ("namespace", &self.namespace_name),
            ("service", &self.canonical_name),
            ("revision", &self.canonical_revision),
            ("app", &self.app_name),
            ("version", &self.app_version),
            ("region", &self.region),
            ("availability_zone", &self.zone),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
    }

    /// As a struct of [`fields`](Self::field), with the identity and the labels: what expressions see.
    pub fn to_fields(&self) -> Struct {
        let identity = Some(("identity", self.identity.as_str())).filter(|(_, v)| !v.is_empty());
        let fields = self.known().chain(identity).map(|(k, v)| (k.to_owned(), text(v)));
        let mut fields: Struct = Struct {
            fields: fields.collect(),
        };
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(k, v)| (k.clone(), text(v)));
            let labels = Kind::StructValue(Struct {
                fields: labels.collect(),
            });
            fields.fields.insert("labels".to_owned(), Value { kind: Some(labels) });
        }
        fields
    }

    /// `OWNER` as Kubernetes would give it; none without a known type.
    pub fn owner(&self) -> Option<String> {
        let kind = self.workload_type.name()?;
        let (namespace, workload) = (&self.namespace_name, &self.workload_name);
        Some(format!(
            "kubernetes://apis/apps/v1/namespaces/{namespace}/{kind}s/{workload}"
        ))
    }

    /// A resource of workload discovery.
    pub fn of_workload(workload: &Workload) -> Self {
        let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
        let namespace_name = or(&workload.namespace, "default");
        let locality = workload.locality.as_ref();
        Self {
            instance_name: workload.name.clone(),
            cluster_name: workload.cluster_id.clone(),
            workload_name: workload.workload_name.clone(),
            canonical_name: workload.canonical_name.clone(),
            canonical_revision: workload.canonical_revision.clone(),
            app_name: workload.canonical_name.clone(),
            app_version: workload.canonical_revision.clone(),
            workload_type: match workload.workload_type() {
                ProtoType::Deployment => WorkloadType::Deployment,
                ProtoType::Cronjob => WorkloadType::CronJob,
                ProtoType::Pod => WorkloadType::Pod,
                ProtoType::Job => WorkloadType::Job,
            },
            identity: format!(
                "spiffe://{}/ns/{namespace_name}/sa/{}",
                or(&workload.trust_domain, "cluster.local"),
                or(&workload.service_account, "default"),
            ),
            namespace_name,
            region: locality.map(|l| l.region.clone()).unwrap_or_default(),
            zone: locality.map(|l| l.zone.clone()).unwrap_or_default(),
            labels: Vec::new(),
        }
    }

    /// An endpoint's `istio.workload` metadata: `name;namespace;service;revision;cluster`. None with fewer parts.
    pub fn of_endpoint(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::to_owned);
        Some(Self {
            workload_name: parts.next()?,
            namespace_name: parts.next()?,
            canonical_name: parts.next()?,
            canonical_revision: parts.next()?,
            cluster_name: parts.next()?,
            ..Self::default()
        })
    }
}

/// `name=value` of everything that is known: what the hash is made of that keeps the connections of two peers apart.
impl fmt::Display for WorkloadMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (name, value) in self.known() {
            write!(f, "{comma}{name}={value}")?;
            comma = ",";
        }
        for (name, value) in &self.labels {
            write!(f, "{comma}labels[]{name}={value}")?;
            comma = ",";
        }
        Ok(())
    }
}

/// A text in a struct.
pub(super) fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

#[cfg(test)]
mod tests;
