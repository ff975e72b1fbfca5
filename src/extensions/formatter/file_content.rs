//! `%FILE_CONTENT(path)%` and `%FILE_CONTENT(path:watched directory)%` (`envoy.formatter.file_content`): what a file
//! holds, which is read again when it changes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use xds_protos::envoy::extensions::formatter::file_content::v3::FileContent as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{CommandParser, CommandParserFactory, Extended, LiveText},
};

/// The extension.
pub struct Factory;

impl CommandParserFactory for Factory {
    const NAME: &'static str = "envoy.formatter.file_content";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>> {
        coverage!(cx, proto => Proto { supported {} });
        Ok(Box::new(Parser))
    }
}

struct Parser;

impl CommandParser for Parser {
    fn parse(&self, command: &str, arguments: &str, cx: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>> {
        (command == "FILE_CONTENT").then(|| content(arguments, cx).map(|c| Extended::Text(c)))
    }
}

struct Content(ArcSwap<Vec<u8>>);

impl LiveText for Content {
    fn get(&self) -> Option<Arc<Vec<u8>>> {
        Some(self.0.load_full())
    }
}

fn content(arguments: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<Content>> {
    let mut parts = arguments.splitn(2, ':');
    let path = PathBuf::from(parts.next().unwrap_or_default());
    if path.as_os_str().is_empty() {
        return Err(cx.error("FILE_CONTENT requires parameters"));
    }
    let bytes = fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => cx.error(format!("file {} does not exist", path.display())),
        _ => cx.error(format!("unable to read file: {}: {e}", path.display())),
    })?;
    let changes = match parts.next() {
        Some(directory) => cx.server.xds.files.directory(Path::new(directory), false),
        None => cx.server.xds.files.file(&path),
    }
    .map_err(|e| cx.error(format!("unable to watch file: {}: {e}", path.display())))?;
    let content = Arc::new(Content(ArcSwap::from_pointee(bytes)));
    let held = Arc::downgrade(&content);
    // The task ends with the first change after the format is gone.
    cx.server.mailboxes.run_on_control(move |_| {
        tokio::task::spawn_local(async move {
            loop {
                changes.changed().await;
                let Some(content) = held.upgrade() else { return };
                match fs::read(&path) {
                    Ok(bytes) => content.0.store(Arc::new(bytes)),
                    Err(error) => tracing::warn!(path = %path.display(), %error, "a file cannot be read again"),
                }
            }
        });
    });
    Ok(content)
}
