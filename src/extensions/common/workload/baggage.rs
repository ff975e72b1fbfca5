//! A workload in the form of W3C `baggage`, as ambient mode passes it along HBONE tunnels.

use super::{WorkloadMetadata, WorkloadType};

impl WorkloadMetadata {
    /// The baggage that tells of this workload.
    pub fn baggage(&self) -> String {
        let mut parts = Vec::new();
        if !self.workload_name.is_empty() {
            let kind = self.workload_type.name().unwrap_or("pod");
            parts.push(format!("k8s.{kind}.name={}", self.workload_name));
        }
        // An application is told of by itself only where it is not called as its service is.
        let mut pair = |service: (&str, &str), app: (&str, &str)| {
            for (name, value) in [service, app] {
                let repeated = name == app.0 && value == service.1;
                if !value.is_empty() && !repeated {
                    parts.push(format!("{name}={value}"));
                }
            }
        };
        pair(("service.name", &self.canonical_name), ("app.name", &self.app_name));
        pair(
            ("service.version", &self.canonical_revision),
            ("app.version", &self.app_version),
        );
        for (name, value) in [
            ("k8s.namespace.name", &self.namespace_name),
            ("k8s.cluster.name", &self.cluster_name),
            ("k8s.instance.name", &self.instance_name),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ] {
            if !value.is_empty() {
                parts.push(format!("{name}={value}"));
            }
        }
        parts.join(",")
    }

    /// What baggage tells of a workload; what else it carries is left alone.
    pub fn of_baggage(baggage: &str, identity: &str) -> Self {
        let mut told = Self {
            identity: identity.to_owned(),
            ..Self::default()
        };
        for property in baggage.split(',') {
            let mut parts = property.split('=');
            let name = parts.next().unwrap_or_default();
            let value = parts.next().unwrap_or_default().to_owned();
            match name {
                "k8s.namespace.name" => told.namespace_name = value,
                "k8s.cluster.name" => told.cluster_name = value,
                "k8s.instance.name" => told.instance_name = value,
                "cloud.region" => told.region = value,
                "cloud.availability_zone" => told.zone = value,
                "service.name" => both(&mut told.canonical_name, &mut told.app_name, value),
                "app.name" => both(&mut told.app_name, &mut told.canonical_name, value),
                "service.version" => both(&mut told.canonical_revision, &mut told.app_version, value),
                "app.version" => both(&mut told.app_version, &mut told.canonical_revision, value),
                "k8s.deployment.name" | "k8s.pod.name" | "k8s.cronjob.name" | "k8s.job.name" => {
                    told.workload_name = value;
                    let kind = name.split('.').nth(1).unwrap_or_default();
                    told.workload_type = WorkloadType::from_name(kind);
                }
                _ => {}
            }
        }
        told
    }
}

/// Sets a field, and its twin as long as that is not known by itself.
fn both(field: &mut String, twin: &mut String, value: String) {
    if twin.is_empty() {
        twin.clone_from(&value);
    }
    *field = value;
}
