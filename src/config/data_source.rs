//! `envoy.config.core.v3.DataSource`: bytes that stand in the configuration, a file or the environment.

use xds_protos::envoy::config::core::v3::{DataSource, data_source::Specifier};

use super::{BuildCx, ConfigResult};

/// Reads a data source once.
pub fn read_data_source(proto: DataSource, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<u8>> {
    coverage!(cx, proto => DataSource {
        supported { specifier }
        ignored { watched_directory: "the file is read when its resource is configured" }
    });
    match specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.into_bytes()),
        Some(Specifier::Filename(path)) => std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => cx.error_at("filename", format!("file {path} does not exist")),
            _ => cx.error_at("filename", format!("unable to read file: {path}: {e}")),
        }),
        Some(Specifier::EnvironmentVariable(name)) => std::env::var_os(&name)
            .map(std::os::unix::ffi::OsStringExt::into_vec)
            .ok_or_else(|| {
                cx.error_at(
                    "environment_variable",
                    format!("Environment variable doesn't exist: {name}"),
                )
            }),
        None => Err(cx.error("Unexpected DataSource::specifier_case(): 0")),
    }
}
