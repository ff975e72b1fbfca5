//! What a conversion is given: the path it stands at, the server it builds for, and where it
//! leaves what has to be waited for.

use std::{fmt::Write, sync::Arc};

use tokio::sync::watch;

use super::{ConfigError, ConfigResult};
use crate::server::ServerContext;

/// A field that was set and has no effect here: warned about, counted as `config.ignored_field`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// Path of the field from the resource down.
    pub path: String,
    /// Why leaving it out does no harm.
    pub why: &'static str,
}

/// Something a resource waits for before it may serve: a route table, a secret, an extension.
#[derive(Debug, Clone)]
pub struct InitTarget {
    /// Shown when a start-up takes long, for example `RouteConfiguration http.80`.
    pub name: String,
    /// Becomes true once: when the first answer came, or its `initial_fetch_timeout` passed.
    pub ready: watch::Receiver<bool>,
}

/// The context of one resource's conversion.
///
/// Conversions may run on any control-side thread; nothing in here belongs to a worker.
pub struct BuildCx<'a> {
    /// The server that is being configured.
    pub server: &'a Arc<ServerContext>,
    /// What the resource waits for; the manager that applies it awaits all of them (warming).
    pub init: Vec<InitTarget>,
    /// Harmless fields that were set.
    pub ignored: Vec<Ignored>,
    /// `listener.<stat_prefix>.` while a listener is built: connection managers count under it too.
    pub listener_prefix: Option<String>,
    /// `http.<stat_prefix>.` while a connection manager is built: its filters count under it.
    pub http_prefix: String,
    path: String,
}

impl<'a> BuildCx<'a> {
    /// A context at the root of a resource.
    pub fn new(server: &'a Arc<ServerContext>) -> Self {
        Self {
            server,
            init: Vec::new(),
            ignored: Vec::new(),
            listener_prefix: None,
            http_prefix: String::new(),
            path: String::new(),
        }
    }

    /// Runs `build` one field deeper, so that its errors carry the field's path.
    pub fn field<T>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> ConfigResult<T>) -> ConfigResult<T> {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let built = build(self);
        self.path.truncate(len);
        built
    }

    /// Runs `build` for one element of a repeated field: `name[index]`.
    pub fn item<T>(
        &mut self,
        name: &str,
        index: usize,
        build: impl FnOnce(&mut Self) -> ConfigResult<T>,
    ) -> ConfigResult<T> {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        // Writing to a String cannot fail.
        let _ = write!(self.path, "{name}[{index}]");
        let built = build(self);
        self.path.truncate(len);
        built
    }

    /// Builds every element of a repeated field.
    pub fn each<P, T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = P>,
        mut build: impl FnMut(P, &mut Self) -> ConfigResult<T>,
    ) -> ConfigResult<Vec<T>> {
        let items = items.into_iter();
        // Collecting results would make room for four where there is one, in ten thousand virtual hosts.
        let mut built = Vec::with_capacity(items.size_hint().0);
        for (i, proto) in items.enumerate() {
            built.push(self.item(name, i, |cx| build(proto, cx))?);
        }
        Ok(built)
    }

    /// Builds an optional message field.
    pub fn opt<P, T>(
        &mut self,
        name: &str,
        value: Option<P>,
        build: impl FnOnce(P, &mut Self) -> ConfigResult<T>,
    ) -> ConfigResult<Option<T>> {
        value.map(|p| self.field(name, |cx| build(p, cx))).transpose()
    }

    /// Builds a message field that must be there.
    pub fn required<P, T>(
        &mut self,
        name: &str,
        value: Option<P>,
        build: impl FnOnce(P, &mut Self) -> ConfigResult<T>,
    ) -> ConfigResult<T> {
        match value {
            Some(p) => self.field(name, |cx| build(p, cx)),
            None => Err(self.error_at(name, "value is required")),
        }
    }

    /// An error at the current path.
    pub fn error(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path.clone(), reason)
    }

    /// An error at a field of the current message.
    pub fn error_at(&self, field: &str, reason: impl Into<String>) -> ConfigError {
        let path = if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        };
        ConfigError::new(path, reason)
    }

    /// Notes a harmless field of the current message that was set and has no effect.
    pub fn ignored(&mut self, field: &str, why: &'static str) {
        let path = if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        };
        self.ignored.push(Ignored { path, why });
    }

    /// Adds something to wait for before the resource serves.
    pub fn wait_for(&mut self, target: InitTarget) {
        self.init.push(target);
    }
}
