//! `envoy.resource_monitors.injected_resource`: the pressure stands in a file, for tests and for who measures it
//! himself. The file is read again when another is moved in its place.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use xds_protos::envoy::extensions::resource_monitors::injected_resource::v3::InjectedResourceConfig as Proto;

use super::{read, unexpected};
use crate::{
    config::{BuildCx, ConfigResult},
    server::overload::{Monitor, MonitorError, ResourceMonitor, ResourceMonitorFactory},
};

/// The extension.
pub struct Factory;

impl ResourceMonitorFactory for Factory {
    const NAME: &'static str = "envoy.resource_monitors.injected_resource";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Monitor> {
        coverage!(cx, proto => Proto { supported { filename } });
        let missing = |error: &dyn std::fmt::Display| {
            cx.error(format!("unable to add filesystem watch for file {filename}: {error}"))
        };
        let path = PathBuf::from(&filename);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if !directory.is_none_or(Path::is_dir) {
            return Err(missing(&"No such file or directory"));
        }
        let changes = cx.server.xds.files.file(&path).map_err(|e| missing(&e))?;
        let changed = Arc::new(AtomicBool::new(true));
        let told = changed.clone();
        cx.server.mailboxes.run_on_control(move |_| {
            tokio::task::spawn_local(async move {
                loop {
                    changes.changed().await;
                    told.store(true, Ordering::Relaxed);
                }
            });
        });
        Ok(Monitor::Sampled(Box::new(InjectedResource {
            path,
            changed,
            last: None,
        })))
    }
}

struct InjectedResource {
    path: PathBuf,
    changed: Arc<AtomicBool>,
    /// What was read last; none when that was no pressure.
    last: Option<f64>,
}

impl ResourceMonitor for InjectedResource {
    fn pressure(&mut self) -> Result<f64, MonitorError> {
        if self.changed.swap(false, Ordering::Relaxed) {
            self.last = None;
            let text = read(&self.path)?;
            let pressure = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
            self.last = Some(pressure.ok_or_else(|| unexpected(&self.path, &text))?);
        }
        self.last.ok_or_else(|| unexpected(&self.path, "no pressure"))
    }
}
