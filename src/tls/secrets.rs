//! Secrets: static ones of the bootstrap and those that come by SDS, each in a slot that its users share.
//!
//! A new secret is tried first: every context that uses it is built with it, and only if all of them succeed is it
//! published. A bad one is refused (NACK), and the last good one keeps serving.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use xds_protos::{
    envoy::{
        config::core::v3::{DataSource, WatchedDirectory, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, GenericSecret, SdsSecretConfig, Secret, secret::Type,
        },
    },
    prost::Message,
};

use super::{
    admin::{Contexts, TlsContext},
    certificate::Identity,
    tickets,
};
use crate::{
    config::{BuildCx, ConfigError, ConfigResult, InitTarget},
    server::ServerContext,
    stats::Stats,
    stats_block,
    xds::{Change, FileChanges, WatchGuard},
};

stats_block! {
    /// `sds.<name>.*`, beside those of the subscription.
    pub struct SdsStats {
        counter key_rotation_failed, "Changed files that could not be used";
    }
}

/// What a secret is.
#[derive(Debug, Clone)]
pub enum SecretValue {
    /// A certificate with its key.
    Certificate(CertificateSecret),
    /// How peers are validated.
    Validation(Arc<CertificateValidationContext>),
    /// Keys of session tickets.
    TicketKeys(Arc<Vec<Vec<u8>>>),
    /// Anything else: tokens of filters.
    Generic(Arc<GenericSecret>),
    /// A static secret that cannot be read: an error for who uses it, and only then, as in Envoy.
    Unusable(ConfigError),
}

/// A certificate's runtime form, which stays within this module.
#[derive(Debug, Clone)]
pub struct CertificateSecret(pub(super) Arc<Identity>);

/// Which kind of secret is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// `tls_certificate`
    Certificate,
    /// `validation_context`
    Validation,
    /// `session_ticket_keys`
    TicketKeys,
    /// `generic_secret`
    Generic,
}

/// The secret that is in use.
#[derive(Debug)]
pub struct AppliedSecret {
    /// As it came.
    pub proto: Secret,
    /// Its version; empty for static ones.
    pub version: String,
    /// When it was applied.
    pub last_updated: SystemTime,
    /// What it is.
    pub value: SecretValue,
}

/// A secret's place: empty until it came, then the last good version.
pub struct SecretSlot {
    name: Arc<str>,
    kind: SecretKind,
    applied: ArcSwapOption<AppliedSecret>,
    users: Mutex<Vec<Weak<dyn SecretUser>>>,
    stats: Option<Stats<SdsStats>>,
    watched: Mutex<Option<WatchedFiles>>,
    // Set right after the slot is made: the subscription's handler points back at it.
    subscription: OnceLock<(WatchGuard, InitTarget)>,
}

impl std::fmt::Debug for SecretSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretSlot({})", self.name)
    }
}

/// What is built from secrets, and built again when they change.
pub trait SecretUser: Send + Sync {
    /// Builds with `candidate` in the place of what its slot holds. The result is published by calling it.
    fn prepare(&self, candidate: &Candidate<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn FnOnce() + '_>>;
}

/// A TLS context, whose state is built anew from its secrets.
pub(super) trait Rebuilt: Send + Sync {
    /// What is built from the secrets of one moment.
    type State: Send + Sync;

    /// Builds the state; none while a secret is missing.
    fn assemble(&self, candidate: Option<&Candidate<'_>>, cx: &mut BuildCx<'_>) -> ConfigResult<Option<Self::State>>;

    /// Where the state is published.
    fn state(&self) -> &ArcSwapOption<Self::State>;

    /// Counts a state that a changed secret brought.
    fn count_update(&self);
}

impl<T: Rebuilt> SecretUser for T {
    fn prepare(&self, candidate: &Candidate<'_>, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn FnOnce() + '_>> {
        let state = self.assemble(Some(candidate), cx)?.map(Arc::new);
        Ok(Box::new(move || {
            if state.is_some() {
                self.count_update();
            }
            self.state().store(state);
        }))
    }
}

/// A secret that is tried before it is published.
pub struct Candidate<'a> {
    slot: &'a SecretSlot,
    value: &'a SecretValue,
}

/// All secrets of the process.
#[derive(Default)]
pub struct Secrets {
    statics: Mutex<HashMap<(SecretKindKey, String), Arc<SecretSlot>>>,
    dynamic: Mutex<HashMap<Key, Weak<SecretSlot>>>,
    building: Mutex<()>,
    contexts: Contexts,
}

type SecretKindKey = u8;
// Kind, name and encoded source.
type Key = (SecretKindKey, String, Vec<u8>);

impl Secrets {
    /// Adds a secret of the bootstrap (`static_resources.secrets`). Whether it can be used is asked by its users.
    pub fn add_static(&self, proto: Secret, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
        let name = proto.name.clone();
        let (kind, value) = match (read(&proto, cx), kind_of(&proto)) {
            (Ok(read), _) => read,
            (Err(error), Some(kind)) => {
                tracing::warn!(secret = %name, %error, "a static secret cannot be used");
                (kind, SecretValue::Unusable(error))
            }
            (Err(error), None) => return Err(error),
        };
        let slot = SecretSlot {
            name: name.as_str().into(),
            kind,
            applied: ArcSwapOption::from_pointee(AppliedSecret {
                proto,
                version: String::new(),
                last_updated: SystemTime::now(),
                value,
            }),
            users: Mutex::default(),
            stats: None,
            watched: Mutex::default(),
            subscription: OnceLock::new(),
        };
        if lock(&self.statics)
            .insert((kind as u8, name.clone()), Arc::new(slot))
            .is_some()
        {
            return Err(cx.error(format!("Duplicate static secret name {name}")));
        }
        Ok(())
    }

    /// The slot of a secret: a static one when there is no `sds_config`, or else subscribed at the first call, with
    /// an init target pushed into `cx` while it has no first answer.
    pub fn subscribe(config: SdsSecretConfig, kind: SecretKind, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<SecretSlot>> {
        coverage!(cx, config => SdsSecretConfig { supported { name, sds_config } });
        let server = cx.server;
        let Some(source) = sds_config else {
            let slot = lock(&server.secrets.statics).get(&(kind as u8, name.clone())).cloned();
            let slot = slot.ok_or_else(|| cx.error(unknown(kind, &name)))?;
            if let Some(applied) = slot.applied()
                && let SecretValue::Unusable(error) = &applied.value
            {
                return Err(error.clone());
            }
            return Ok(slot);
        };
        if name.is_empty() {
            return Err(cx.error_at("name", "value length must be at least 1 characters"));
        }
        server.xds.check(&source, cx)?;
        let key = (kind as u8, name.clone(), source.encode_to_vec());
        let slot = {
            let mut slots = lock(&server.secrets.dynamic);
            slots.retain(|_, slot| slot.strong_count() > 0);
            match slots.get(&key).and_then(Weak::upgrade) {
                Some(slot) => slot,
                None => {
                    let slot = SecretSlot::subscribe(&name, kind, &source, server);
                    slots.insert(key, Arc::downgrade(&slot));
                    slot
                }
            }
        };
        if let Some((_, target)) = slot.subscription.get()
            && !*target.ready.borrow()
        {
            cx.wait_for(target.clone());
        }
        Ok(slot)
    }

    /// Static slots, then subscribed ones, each by kind and then by name.
    pub fn all(&self) -> (Vec<Arc<SecretSlot>>, Vec<Arc<SecretSlot>>) {
        let mut statics: Vec<_> = lock(&self.statics).values().cloned().collect();
        let mut dynamic: Vec<_> = lock(&self.dynamic).values().filter_map(Weak::upgrade).collect();
        let order = |a: &Arc<SecretSlot>, b: &Arc<SecretSlot>| (a.kind as u8, &a.name).cmp(&(b.kind as u8, &b.name));
        statics.sort_by(order);
        dynamic.sort_by(order);
        (statics, dynamic)
    }

    /// Lists a context's certificates as long as it lives.
    pub(super) fn add_context(&self, context: Weak<dyn TlsContext>) {
        self.contexts.add(context);
    }

    /// All contexts.
    pub(super) fn contexts(&self) -> Vec<Arc<dyn TlsContext>> {
        self.contexts.alive()
    }

    /// Contexts are built one at a time, so that a secret that changes meanwhile is not lost.
    pub(super) fn building(&self) -> MutexGuard<'_, ()> {
        lock(&self.building)
    }
}

impl SecretSlot {
    fn subscribe(
        name: &str,
        kind: SecretKind,
        source: &xds_protos::envoy::config::core::v3::ConfigSource,
        server: &Arc<ServerContext>,
    ) -> Arc<Self> {
        let prefix = format!("sds.{name}.");
        let slot = Arc::new(Self {
            name: name.into(),
            kind,
            applied: ArcSwapOption::empty(),
            users: Mutex::default(),
            stats: Some(server.stats.scope(&prefix).block()),
            watched: Mutex::default(),
            subscription: OnceLock::new(),
        });
        let weak = Arc::downgrade(&slot);
        let subscription = server.xds.watch_one::<Secret>(
            server,
            "SDS secret",
            name,
            source,
            prefix,
            move |change, server| match (weak.upgrade(), change) {
                (Some(slot), Change::Set { proto, resource }) => {
                    let proto = Secret {
                        // The resource's name counts where the secret itself has none.
                        name: if proto.name.is_empty() {
                            resource.name.clone()
                        } else {
                            proto.name.clone()
                        },
                        ..proto
                    };
                    slot.apply(proto, &resource.version, server)
                }
                // As Envoy: what was applied keeps serving.
                _ => Ok(()),
            },
        );
        let _ = slot.subscription.set(subscription);
        slot
    }

    fn apply(self: &Arc<Self>, proto: Secret, version: &str, server: &Arc<ServerContext>) -> ConfigResult<()> {
        let files = files_of(&proto);
        // Content of files may change under a secret that stays the same.
        if files.is_empty() && self.applied.load().as_ref().is_some_and(|a| a.proto == proto) {
            return Ok(());
        }
        let watched = lock(&self.watched).as_ref().map(|w| w.files.clone());
        self.publish(proto, version, server)?;
        if watched.as_ref() != Some(&files) {
            *lock(&self.watched) = WatchedFiles::start(files, self, server);
        }
        Ok(())
    }

    fn publish(&self, proto: Secret, version: &str, server: &Arc<ServerContext>) -> ConfigResult<()> {
        let mut cx = BuildCx::new(server);
        let (kind, value) = read(&proto, &mut cx)?;
        if kind != self.kind {
            return Err(cx.error(format!("Unexpected SDS secret (expecting {:?}): {:?}", self.kind, kind)));
        }
        let _building = server.secrets.building();
        let users: Vec<_> = {
            let mut users = lock(&self.users);
            users.retain(|u| u.strong_count() > 0);
            users.iter().filter_map(Weak::upgrade).collect()
        };
        let candidate = Candidate {
            slot: self,
            value: &value,
        };
        let commits = users
            .iter()
            .map(|user| user.prepare(&candidate, &mut cx))
            .collect::<ConfigResult<Vec<_>>>()?;
        for commit in commits {
            commit();
        }
        for ignored in &cx.ignored {
            tracing::warn!(secret = %self.name, field = %ignored.path, "field has no effect: {}", ignored.why);
        }
        self.applied.store(Some(Arc::new(AppliedSecret {
            proto,
            version: version.to_owned(),
            last_updated: SystemTime::now(),
            value,
        })));
        Ok(())
    }

    /// Reads the files of the secret again.
    fn rotate(&self, server: &Arc<ServerContext>) {
        let Some(applied) = self.applied.load_full() else {
            return;
        };
        if let Err(error) = self.publish(applied.proto.clone(), &applied.version, server) {
            tracing::warn!(secret = %self.name, %error, "Failed to reload certificates");
            if let Some(stats) = &self.stats {
                stats.local().key_rotation_failed.inc();
            }
        }
    }

    /// Tells `user` of changes until it is dropped.
    pub fn register(&self, user: Weak<dyn SecretUser>) {
        lock(&self.users).push(user);
    }

    /// The secret's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The secret as it is in use; none before the first good one.
    pub fn applied(&self) -> Option<Arc<AppliedSecret>> {
        self.applied.load_full()
    }

    /// What the slot holds, or will hold if `candidate` is taken.
    pub fn value(&self, candidate: Option<&Candidate<'_>>) -> Option<SecretValue> {
        match candidate {
            Some(c) if std::ptr::eq(c.slot, self) => Some(c.value.clone()),
            _ => self.applied.load().as_ref().map(|a| a.value.clone()),
        }
    }
}

fn unknown(kind: SecretKind, name: &str) -> String {
    match kind {
        SecretKind::Certificate => format!("Unknown static secret: {name}"),
        SecretKind::Validation => format!("Unknown static certificate validation context: {name}"),
        SecretKind::TicketKeys => format!("Unknown tls session ticket keys: {name}"),
        SecretKind::Generic => format!("Unknown static generic secret: {name}"),
    }
}

/// Which kind of secret it is; none when it says nothing.
fn kind_of(proto: &Secret) -> Option<SecretKind> {
    Some(match proto.r#type.as_ref()? {
        Type::TlsCertificate(_) => SecretKind::Certificate,
        Type::ValidationContext(_) => SecretKind::Validation,
        Type::SessionTicketKeys(_) => SecretKind::TicketKeys,
        Type::GenericSecret(_) => SecretKind::Generic,
    })
}

/// Reads a secret and checks all that can be checked without its users.
fn read(proto: &Secret, cx: &mut BuildCx<'_>) -> ConfigResult<(SecretKind, SecretValue)> {
    let proto = proto.clone();
    coverage!(cx, proto => Secret { supported { name, r#type } });
    match r#type {
        Some(Type::TlsCertificate(c)) => {
            let identity = cx.field("tls_certificate", |cx| Identity::build(c, cx))?;
            let value = SecretValue::Certificate(CertificateSecret(Arc::new(identity)));
            Ok((SecretKind::Certificate, value))
        }
        Some(Type::ValidationContext(v)) => {
            cx.field("validation_context", |cx| {
                let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
                // A combined context may complete what is not valid alone: only its data is read here.
                match &v.trusted_ca {
                    Some(_) => super::validation::Validator::build(v.clone(), false, algorithms, cx).map(|_| ()),
                    None => Ok(()),
                }
            })?;
            Ok((SecretKind::Validation, SecretValue::Validation(Arc::new(v))))
        }
        Some(Type::SessionTicketKeys(k)) => {
            let keys = cx.field("session_ticket_keys", |cx| tickets::read_keys(k, cx))?;
            Ok((SecretKind::TicketKeys, SecretValue::TicketKeys(Arc::new(keys))))
        }
        Some(Type::GenericSecret(g)) => Ok((SecretKind::Generic, SecretValue::Generic(Arc::new(g)))),
        None => Err(cx.error(format!("Secret type not implemented: {name}"))),
    }
}

/// What to watch for a secret that stands in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Files {
    /// `watched_directory`: instead of the files themselves.
    directory: Option<String>,
    files: Vec<String>,
}

impl Files {
    fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn files_of(proto: &Secret) -> Files {
    let (directory, sources): (&Option<WatchedDirectory>, Vec<&Option<DataSource>>) = match &proto.r#type {
        Some(Type::TlsCertificate(c)) => (
            &c.watched_directory,
            vec![&c.certificate_chain, &c.private_key, &c.ocsp_staple, &c.pkcs12],
        ),
        Some(Type::ValidationContext(v)) => (&v.watched_directory, vec![&v.trusted_ca, &v.crl]),
        _ => return Files::default(),
    };
    let files = sources
        .into_iter()
        .filter_map(|source| match &source.as_ref()?.specifier {
            Some(Specifier::Filename(path)) => Some(path.clone()),
            _ => None,
        })
        .collect();
    Files {
        directory: directory.as_ref().map(|d| d.path.clone()),
        files,
    }
}

/// A running watch; dropping it ends the watch.
struct WatchedFiles {
    files: Files,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl WatchedFiles {
    fn start(files: Files, slot: &Arc<SecretSlot>, server: &Arc<ServerContext>) -> Option<Self> {
        if files.is_empty() {
            return None;
        }
        let watched = match &files.directory {
            Some(directory) => vec![server.xds.files.directory(Path::new(directory), false)],
            None => files
                .files
                .iter()
                .map(|f| server.xds.files.file(Path::new(f)))
                .collect(),
        };
        let changes: Vec<FileChanges> = watched
            .into_iter()
            .filter_map(|w| {
                w.inspect_err(|error| tracing::error!(secret = %slot.name, %error, "cannot watch the secret's files"))
                    .ok()
            })
            .collect();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let slot = Arc::downgrade(slot);
        server.mailboxes.run_on_control(move |worker| {
            let server = worker.server.clone();
            tokio::task::spawn_local(async move {
                loop {
                    let any = futures_util::future::select_all(changes.iter().map(|c| Box::pin(c.changed())));
                    tokio::select! {
                        _ = any => {}
                        _ = &mut stopped => return,
                    }
                    match slot.upgrade() {
                        Some(slot) => slot.rotate(&server),
                        None => return,
                    }
                }
            });
        });
        Some(Self { files, _stop: stop })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
