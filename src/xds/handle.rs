//! The way in: [`Handle::watch`] from any thread, a guard that ends the subscription.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, watch};
use xds_protos::{
    envoy::config::core::v3::{ApiConfigSource, ConfigSource},
    prost::{Message, Name},
};

use super::{
    handler::ResourceHandler,
    inventory::Inventory,
    mux,
    resources::{ecds::ExtensionConfigs, rds::RouteConfigs, srds::Scopes},
    single::{Change, Single},
    source::{self, GrpcSource, Source},
    transport::{
        file::{self, FileWatcher},
        rest,
    },
    watch::{Command, NewWatch, WatchId},
};
use crate::{
    config::{BuildCx, ConfigResult, InitTarget},
    server::{ServerContext, Worker},
};

/// What a watch asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Names {
    /// Everything of the type (CDS, LDS).
    Wildcard,
    /// One resource (EDS, RDS, SDS, ECDS, RTDS).
    One(String),
    /// What the control plane sends below this name (`<namespace>/...`), and what is demanded of it: VHDS.
    Namespace(String),
}

/// The xDS client. Every method may be called from any control-side thread.
#[derive(Default)]
pub struct Handle {
    /// The route configurations that listeners share, by name and source.
    pub routes: RouteConfigs,
    /// The scopes of connection managers with `scoped_routes`, for `/config_dump`.
    pub scopes: Scopes,
    /// The filters whose configuration is discovered.
    pub extensions: ExtensionConfigs,
    /// Versions, times and refusals of all resources, for `/config_dump`.
    pub inventory: Inventory,
    /// Files and directories that are watched, for xDS and for certificates.
    pub files: FileWatcher,
    pauses: Pauses,
    pausing: AtomicBool,
    ads: OnceLock<mpsc::UnboundedSender<Command>>,
    started: watch::Sender<bool>,
    next_id: AtomicU64,
}

impl Handle {
    /// Sets up the aggregated stream (`dynamic_resources.ads_config`); call it before anything subscribes.
    pub fn configure_ads(&self, config: ApiConfigSource, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
        let Source::Grpc(source) = source::api(config, cx)? else {
            return Err(cx.error_at("api_type", "ADS is spoken over gRPC only"));
        };
        let (sender, commands) = mpsc::unbounded_channel();
        if self.ads.set(sender).is_err() {
            return Err(cx.error("ADS is configured already"));
        }
        let source = GrpcSource {
            aggregated: true,
            ..source
        };
        cx.server
            .mailboxes
            .run_on_control(move |worker| spawn_mux(worker, source, None, commands));
        Ok(())
    }

    /// Lets the aggregated stream be opened: the clusters that it needs are there. Until then its watches wait, no
    /// longer than their `initial_fetch_timeout`.
    pub fn start(&self) {
        self.started.send_replace(true);
    }

    /// Returns once [`Self::start`] was called.
    pub(super) async fn started(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.started.subscribe().wait_for(|started| *started).await;
    }

    /// Whether `source` can be watched. Configuration that names a source calls this, so that a bad one is a NACK
    /// and not a silent wait.
    pub fn check(&self, source: &ConfigSource, cx: &mut BuildCx<'_>) -> ConfigResult<()> {
        match Source::build(source.clone(), cx)? {
            Source::Ads if self.ads.get().is_none() => {
                Err(cx.error("ADS must be configured to support an ADS config source"))
            }
            Source::Ads | Source::File(_) | Source::Grpc(_) | Source::Rest(_) => Ok(()),
        }
    }

    /// Subscribes. `handler` runs on the control thread until the guard is dropped. Watches made while a handler runs are requested together after it returns.
    ///
    /// A source that [`Self::check`] refuses is logged and never answers.
    pub fn watch(
        &self,
        server: &Arc<ServerContext>,
        type_url: &str,
        source: &ConfigSource,
        names: Names,
        handler: Box<dyn ResourceHandler + Send>,
    ) -> WatchGuard {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let alive = Arc::new(AtomicBool::new(true));
        let watch = NewWatch {
            id,
            type_url: type_url.to_owned(),
            names,
            handler,
            alive: alive.clone(),
            timeout: source::initial_fetch_timeout(source),
        };
        let (sender, commands) = mpsc::unbounded_channel();
        let guard = |sender| WatchGuard { id, alive, sender };
        // Streams of their own begin at once: a cluster of the bootstrap may wait for a certificate, and the
        // aggregated stream for that cluster.
        match Source::build(source.clone(), &mut BuildCx::new(server)) {
            Ok(Source::Ads) => match self.ads.get() {
                Some(ads) => {
                    // The stream's task ends with the process.
                    let _ = ads.send(Command::Watch(Box::new(watch)));
                    return guard(ads.clone());
                }
                None => tracing::error!(type_url, "ADS must be configured to support an ADS config source"),
            },
            Ok(Source::File(source)) => server.mailboxes.run_on_control(move |worker: &Rc<Worker>| {
                let server = worker.server.clone();
                tokio::task::spawn_local(file::run(source, watch, commands, server));
            }),
            Ok(Source::Grpc(source)) => {
                let prefix = watch.handler.stat_prefix();
                let own = Some((watch.type_url.clone(), prefix));
                let _ = sender.send(Command::Watch(Box::new(watch)));
                server
                    .mailboxes
                    .run_on_control(move |worker| spawn_mux(worker, source, own, commands));
            }
            Ok(Source::Rest(source)) => server.mailboxes.run_on_control(move |worker: &Rc<Worker>| {
                tokio::task::spawn_local(rest::run(source, watch, commands, worker.clone()));
            }),
            Err(error) => tracing::error!(type_url, %error, "cannot subscribe"),
        }
        guard(sender)
    }

    /// Subscribes to one resource of type `P`. `apply` gets each new version of it, decoded and validated, and its
    /// removal; an error it returns is NACKed. The target is ready after the first answer or the
    /// `initial_fetch_timeout`.
    ///
    /// `what` names the resource type in Envoy's words for the target and for errors: `RDS configuration`,
    /// `EDS cluster`, `SDS secret`.
    pub fn watch_one<P: Message + Name + Default + 'static>(
        &self,
        server: &Arc<ServerContext>,
        what: &'static str,
        name: &str,
        source: &ConfigSource,
        stat_prefix: String,
        apply: impl FnMut(Change<'_, P>, &Arc<ServerContext>) -> ConfigResult<()> + Send + 'static,
    ) -> (WatchGuard, InitTarget) {
        let (handler, target) = Single::new(what, name, stat_prefix, apply);
        let guard = self.watch(
            server,
            &xds_protos::type_url::<P>(),
            source,
            Names::One(name.to_owned()),
            Box::new(handler),
        );
        (guard, target)
    }

    /// Holds back requests of a type on the aggregated stream, ACKs among them, until the guard is dropped. While
    /// clusters are warming, CDS is paused: its ACK tells the control plane that they serve.
    pub fn pause(&self, type_url: &str) -> Pause {
        self.pauses.add(type_url);
        Pause {
            type_url: type_url.to_owned(),
            pauses: self.pauses.clone(),
            ads: self.ads.get().cloned(),
        }
    }

    /// Pauses count from now on: the clusters of the start are initialised. Before that Envoy acknowledges at once.
    pub(super) fn begin_pausing(&self) {
        self.pausing.store(true, Ordering::Relaxed);
    }

    /// Whether requests of this type are held back.
    pub(super) fn paused(&self, type_url: &str) -> bool {
        if !self.pausing.load(Ordering::Relaxed) {
            return false;
        }
        self.pauses
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(type_url)
    }
}

fn spawn_mux(
    worker: &Rc<Worker>,
    source: GrpcSource,
    own: Option<(String, String)>,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    tokio::task::spawn_local(mux::run(worker.clone(), source, own, commands));
}

/// How often each type is paused.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<HashMap<String, usize>>>);

impl Pauses {
    fn add(&self, type_url: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(type_url.to_owned()).or_default() += 1;
    }

    // Whether that was the last one.
    fn remove(&self, type_url: &str) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(type_url) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => counts.remove(type_url).is_some(),
        }
    }
}

/// Holds back requests of a type; dropping it lets them go.
#[must_use = "dropping it resumes at once"]
pub struct Pause {
    type_url: String,
    pauses: Pauses,
    ads: Option<mpsc::UnboundedSender<Command>>,
}

impl Drop for Pause {
    fn drop(&mut self) {
        if self.pauses.remove(&self.type_url)
            && let Some(ads) = &self.ads
        {
            // The stream's task ends with the process.
            let _ = ads.send(Command::Resume);
        }
    }
}

/// Keeps a subscription; dropping it unsubscribes, and its handler is not called again.
#[must_use = "dropping the guard ends the subscription"]
pub struct WatchGuard {
    id: WatchId,
    alive: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<Command>,
}

impl WatchGuard {
    /// Asks for one more resource of a [`Names::Namespace`] watch (on-demand VHDS).
    pub fn demand(&self, name: &str) {
        // The task may have ended before; then nothing comes, as from a control plane that does not answer.
        let _ = self.sender.send(Command::Demand(self.id, name.to_owned()));
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
        // The task may have ended before.
        let _ = self.sender.send(Command::Unwatch(self.id));
    }
}
