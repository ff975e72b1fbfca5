//! `RuntimeLayer`: where the values of a layer come from.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use xds_protos::{
    envoy::config::bootstrap::v3::{
        LayeredRuntime, RuntimeLayer,
        runtime_layer::{AdminLayer, DiskLayer, LayerSpecifier},
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use super::{Entry, snapshot::Values};
use crate::config::{ConfigError, ConfigResult};

/// Directories below one another in a disk layer.
const MAX_DEPTH: u32 = 16;

/// A layer of the bootstrap.
pub(super) struct LayerConfig {
    pub name: String,
    pub source: Source,
}

/// Where its values are.
pub(super) enum Source {
    /// In the bootstrap.
    Static(Arc<Values>),
    /// In files below `symlink_root`.
    Disk(Disk),
    /// Set over the admin interface.
    Admin,
    /// Discovered.
    Rtds,
}

/// A disk layer: a file per key, a directory per dot.
pub(super) struct Disk {
    /// Replaced by a move to publish a new set.
    pub symlink_root: PathBuf,
    /// Where the files are, below it.
    pub directory: PathBuf,
}

/// Reads the layers of the bootstrap.
pub(super) fn layers(proto: LayeredRuntime, service_cluster: &str) -> ConfigResult<Vec<LayerConfig>> {
    coverage!((), proto => LayeredRuntime { supported { layers } });
    let mut names = HashSet::new();
    let mut admin = false;
    let mut built = Vec::with_capacity(layers.len());
    for (index, layer) in layers.into_iter().enumerate() {
        let at = |field: &str| format!("layered_runtime.layers[{index}]{field}");
        coverage!((), layer => RuntimeLayer { supported { name, layer_specifier } });
        if !names.insert(name.clone()) {
            return Err(ConfigError::new(at(".name"), format!("Duplicate layer name: {name}")));
        }
        let source = match layer_specifier {
            Some(LayerSpecifier::StaticLayer(values)) => {
                let values = flatten(&values).map_err(|reason| ConfigError::new(at(".static_layer"), reason))?;
                Source::Static(Arc::new(values))
            }
            Some(LayerSpecifier::DiskLayer(disk)) => {
                coverage!((), disk => DiskLayer { supported { symlink_root, append_service_cluster, subdirectory } });
                let mut directory = Path::new(&symlink_root).join(subdirectory);
                if append_service_cluster {
                    directory.push(service_cluster);
                }
                Source::Disk(Disk {
                    symlink_root: symlink_root.into(),
                    directory,
                })
            }
            Some(LayerSpecifier::AdminLayer(AdminLayer {})) => {
                if std::mem::replace(&mut admin, true) {
                    return Err(ConfigError::new(
                        at(".admin_layer"),
                        "Too many admin layers specified in LayeredRuntime, at most one may be specified",
                    ));
                }
                Source::Admin
            }
            // What stands in it is read where it is subscribed.
            Some(LayerSpecifier::RtdsLayer(_)) => Source::Rtds,
            None => return Err(ConfigError::new(at(".layer_specifier"), "value is required")),
        };
        built.push(LayerConfig { name, source });
    }
    Ok(built)
}

/// The values of a `Struct`: structs within it are prefixes of keys, but for those that are a `FractionalPercent`.
pub(super) fn flatten(values: &Struct) -> Result<Values, String> {
    let mut flat = Values::new();
    let mut fields: Vec<_> = values.fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, value) in fields {
        walk(name, value, &mut flat)?;
    }
    Ok(flat)
}

fn walk(key: &str, value: &Value, flat: &mut Values) -> Result<(), String> {
    if let Some(Kind::StructValue(s)) = &value.kind
        && !s.fields.is_empty()
        && !["numerator", "denominator"]
            .iter()
            .any(|name| s.fields.contains_key(*name))
    {
        let mut fields: Vec<_> = s.fields.iter().collect();
        fields.sort_by_key(|(name, _)| *name);
        return fields
            .into_iter()
            .try_for_each(|(name, value)| walk(&format!("{key}.{name}"), value, flat));
    }
    let entry = Entry::of_value(value).ok_or_else(|| format!("Invalid runtime entry value for {key}"))?;
    flat.entry(key.into()).or_insert(entry);
    Ok(())
}

impl Disk {
    /// Reads all files. None if the directory is not there, which is no error: overrides are there when needed.
    pub fn read(&self) -> Result<Option<Values>, String> {
        if !self.directory.is_dir() {
            return Ok(None);
        }
        let mut values = Values::new();
        walk_directory(&self.directory, "", 1, &mut values)?;
        Ok(Some(values))
    }
}

fn walk_directory(directory: &Path, prefix: &str, depth: u32, values: &mut Values) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("Walk recursion depth exceeded {MAX_DEPTH}"));
    }
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for file in fs::read_dir(directory).map_err(|e| failed(directory, e))? {
        let file = file.map_err(|e| failed(directory, e))?;
        let (path, name) = (file.path(), file.file_name());
        let name = name.to_string_lossy();
        let key = match prefix {
            "" => name.into_owned(),
            prefix => format!("{prefix}.{name}"),
        };
        let metadata = fs::metadata(&path).map_err(|e| failed(&path, e))?;
        if metadata.is_dir() {
            walk_directory(&path, &key, depth + 1, values)?;
        } else if metadata.is_file() {
            let text = fs::read_to_string(&path).map_err(|e| failed(&path, e))?;
            let entry = Entry::of_text(&without_comments(&text)).map_err(|e| format!("{}: {e}", path.display()))?;
            values.insert(key.into(), entry);
        }
    }
    Ok(())
}

/// Lines that begin with `#` are comments; white space at the end of the text does not count.
fn without_comments(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    lines.join("\n").trim_end().to_owned()
}
