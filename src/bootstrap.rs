//! The bootstrap: read from file and command line, merged, checked.

use std::path::{Path, PathBuf};

use xds_protos::{
    envoy::config::{
        bootstrap::v3::{Bootstrap, bootstrap::StaticResources},
        core::v3::{Locality, Node},
    },
    load::{self, LoadErrors, LoadOptions, Syntax, UnknownFields},
    prost::{Message, Name},
    prost_reflect::DynamicMessage,
};

use crate::cli::Cli;

/// The static resources of the bootstrap, encoded: there may be ten thousand clusters among them, which take fifteen
/// times as much room when decoded, and they are read twice, at the start and for `/config_dump`.
#[derive(Debug, Default)]
pub struct KeptResources(Option<Box<[u8]>>);

impl KeptResources {
    /// Takes them out of the bootstrap.
    pub fn take(bootstrap: &mut Bootstrap) -> Self {
        Self(bootstrap.static_resources.take().map(|r| r.encode_to_vec().into()))
    }

    /// As they were read; none where the bootstrap had none.
    pub fn read(&self) -> Option<StaticResources> {
        // What was encoded here can be decoded.
        self.0
            .as_deref()
            .map(|bytes| StaticResources::decode(bytes).unwrap_or_default())
    }
}

/// Why a bootstrap cannot be used. One line each, as `--mode validate` prints it.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Neither `-c` nor `--config-yaml`.
    #[error("At least one of --config-path or --config-yaml or Options::configProto() should be non-empty")]
    Missing,
    /// The file cannot be read as a bootstrap.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LoadErrors,
    },
    /// `--config-yaml` cannot be read as a bootstrap.
    #[error("--config-yaml: {0}")]
    Yaml(LoadErrors),
    /// Both were read and do not fit together.
    #[error("--config-yaml over the bootstrap file: {0}")]
    Merge(String),
    /// A rule of the API is broken.
    #[error("{0}")]
    Invalid(String),
}

/// Reads the bootstrap that the command line names.
pub fn load(cli: &Cli) -> Result<Bootstrap, BootstrapError> {
    let options = LoadOptions {
        unknown_fields: if cli.allow_unknown_static_fields {
            UnknownFields::Allow
        } else {
            UnknownFields::Reject
        },
    };
    let file = cli
        .config_path
        .as_deref()
        .map(|path| from_file(path, &options))
        .transpose()?;
    let yaml = cli
        .config_yaml
        .as_deref()
        .map(|text| load::from_str(text, Syntax::Yaml, &Bootstrap::full_name(), &options).map_err(BootstrapError::Yaml))
        .transpose()?
        .map(note_unknown);
    let message = match (file, yaml) {
        (None, None) => return Err(BootstrapError::Missing),
        (Some(one), None) | (None, Some(one)) => one,
        (Some(mut base), Some(over)) => {
            load::merge(&mut base, &over).map_err(|e| BootstrapError::Merge(e.to_string()))?;
            base
        }
    };
    xds_protos::pgv::validate_with_anys(&message).map_err(|e| BootstrapError::Invalid(e.to_string()))?;
    let mut bootstrap: Bootstrap = message
        .transcode_to()
        .map_err(|e| BootstrapError::Merge(e.to_string()))?;
    fill_node(bootstrap.node.get_or_insert_default(), cli);
    Ok(bootstrap)
}

fn from_file(path: &Path, options: &LoadOptions) -> Result<DynamicMessage, BootstrapError> {
    load::from_file(path, &Bootstrap::full_name(), options)
        .map(note_unknown)
        .map_err(|source| BootstrapError::File {
            path: path.to_owned(),
            source,
        })
}

fn note_unknown(loaded: load::Loaded) -> DynamicMessage {
    for unknown in &loaded.unknown_fields {
        tracing::warn!("unknown field in the static configuration: {unknown}");
    }
    loaded.message
}

/// Command line values win over the file's; the rest is what Envoy tells of itself.
fn fill_node(node: &mut Node, cli: &Cli) {
    if let Some(id) = &cli.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &cli.service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &cli.service_zone {
        node.locality
            .get_or_insert_with(Locality::default)
            .zone
            .clone_from(zone);
    }
}
