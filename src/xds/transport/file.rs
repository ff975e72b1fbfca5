//! Filesystem subscriptions: a `DiscoveryResponse` in a file, read again when the file changes.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::sync::{Notify, mpsc};
use xds_protos::{
    envoy::service::discovery::v3::DiscoveryResponse,
    load::{LoadOptions, Syntax, UnknownFields, typed},
};

use crate::{
    server::ServerContext,
    xds::{
        Names,
        source::FileSource,
        watch::{Attempts, Command, NewWatch, Watch, ended},
        wire,
    },
};

/// Watches files and directories; one notification channel of the system serves all of them.
///
/// Envoy acts on moves only (a new version is renamed over the old one). A file that was written in place and
/// closed counts here as well, so that editing a watched file works.
#[derive(Default)]
pub struct FileWatcher(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    watcher: Option<RecommendedWatcher>,
    targets: Targets,
}

// By directory: what is told of changes in it.
type Targets = Arc<Mutex<HashMap<PathBuf, Vec<Target>>>>;

struct Target {
    // None: whatever is moved into the directory.
    file: Option<OsString>,
    // Whether a write counts, too.
    writes: bool,
    changed: Weak<Notify>,
}

/// Tells of changes; dropping it ends the watch.
pub struct FileChanges(Arc<Notify>);

impl FileChanges {
    /// Waits for the next change. Changes that came before the call count once.
    pub async fn changed(&self) {
        self.0.notified().await;
    }
}

impl FileWatcher {
    /// Watches a file: tells when it is replaced by a move, or written and closed.
    pub fn file(&self, path: &Path) -> notify::Result<FileChanges> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.add(directory, path.file_name().map(OsString::from), true)
    }

    /// Watches a directory (`watched_directory`): tells when anything is moved into it and, with `writes`
    /// (`watch_modify`), when anything in it was written.
    pub fn directory(&self, path: &Path, writes: bool) -> notify::Result<FileChanges> {
        self.add(path, None, writes)
    }

    fn add(&self, directory: &Path, file: Option<OsString>, writes: bool) -> notify::Result<FileChanges> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = inner.targets.clone();
        if inner.watcher.is_none() {
            let targets = targets.clone();
            inner.watcher = Some(notify::recommended_watcher(move |event| tell(&targets, event))?);
        }
        let changed = Arc::new(Notify::new());
        let target = Target {
            file,
            writes,
            changed: Arc::downgrade(&changed),
        };
        let new = {
            let mut targets = lock(&targets);
            let of_directory = targets.entry(directory.to_owned()).or_default();
            of_directory.retain(|t| t.changed.strong_count() > 0);
            of_directory.push(target);
            of_directory.len() == 1
        };
        if new && let Some(watcher) = &mut inner.watcher {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(FileChanges(changed))
    }
}

fn lock(targets: &Targets) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Vec<Target>>> {
    targets.lock().unwrap_or_else(PoisonError::into_inner)
}

// Runs on the notifier's own thread.
fn tell(targets: &Targets, event: notify::Result<notify::Event>) {
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            tracing::warn!(%error, "watching files failed");
            return;
        }
    };
    // A rename within the directory comes once more as a pair of both names, which says nothing new.
    let moved = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To)));
    let written = matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)));
    if !moved && !written {
        return;
    }
    let Some(path) = event.paths.first() else { return };
    let (Some(directory), name) = (path.parent(), path.file_name()) else {
        return;
    };
    for target in lock(targets).get(directory).into_iter().flatten() {
        let concerned = target.file.as_deref().is_none_or(|file| name == Some(file));
        if concerned
            && (moved || target.writes)
            && let Some(changed) = target.changed.upgrade()
        {
            changed.notify_one();
        }
    }
}

/// Runs one subscription until its guard is dropped.
pub(in crate::xds) async fn run(
    source: FileSource,
    watch: NewWatch,
    mut commands: mpsc::UnboundedReceiver<Command>,
    server: Arc<ServerContext>,
) {
    let type_url = watch.type_url.clone();
    let mut watch = Watch::new(watch, Attempts::Requests, &server);
    let changes = match &source.watched_directory {
        Some((directory, writes)) => server.xds.files.directory(directory, *writes),
        None => server.xds.files.file(&source.path),
    };
    let changes = match changes {
        Ok(changes) => changes,
        Err(error) => {
            tracing::error!(path = %source.path.display(), %error, "cannot watch the file: changes will not be seen");
            FileChanges(Arc::default())
        }
    };
    loop {
        refresh(&source, &type_url, &mut watch, &server);
        let poll = async {
            match source.poll_interval {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.changed() => {}
            () = poll => {}
            // The guard was the only sender.
            () = ended(&mut commands) => return,
        }
    }
}

fn refresh(source: &FileSource, type_url: &str, watch: &mut Watch, server: &Arc<ServerContext>) {
    watch.attempted();
    let response = match read(&source.path) {
        Ok(response) => response,
        Err(reason) => {
            tracing::warn!(
                "Filesystem config update failure: in {}, {reason}",
                source.path.display()
            );
            watch.unreadable(reason);
            return;
        }
    };
    let version = response.version_info;
    let decoded = wire::decode_all(type_url, response.resources, &version);
    let mut rejected = decoded.rejected;
    let complete = rejected.is_empty();
    rejected.extend(watch.state_of_the_world(&version, &decoded.resources, complete, server));
    server.xds.inventory.note(
        type_url,
        decoded.resources.iter(),
        &[],
        &rejected,
        watch.names == Names::Wildcard,
    );
    if !rejected.is_empty() {
        let detail = wire::error_detail(type_url, &rejected);
        tracing::warn!("Filesystem config update rejected: {detail}");
    }
}

fn read(path: &Path) -> Result<DiscoveryResponse, String> {
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    let options = LoadOptions {
        unknown_fields: UnknownFields::Allow,
    };
    match Syntax::of_path(path) {
        Syntax::Pb => xds_protos::prost::Message::decode(text.as_slice()).map_err(|e| e.to_string()),
        syntax => typed(&String::from_utf8_lossy(&text), syntax, &options).map_err(|e| e.to_string()),
    }
}
