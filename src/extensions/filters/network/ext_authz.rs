//! `envoy.filters.network.ext_authz`: a service decides on a connection.
//!
//! As in Envoy it is asked when the client has sent something, so that all is known then; a server that speaks first may
//! do so before.

use std::{collections::HashMap, future::pending, rc::Rc, sync::Arc, time::Instant};

use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::{
        config::core::v3::Metadata,
        extensions::filters::network::ext_authz::v3::ExtAuthz as Proto,
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse,
            attribute_context::{Peer, TlsSession},
        },
    },
    google::protobuf::{Struct, Value, value::Kind},
};

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::{
        filters::common::authorization::{ask, peer},
        grpc_service::Target,
    },
    http::{ConnectionInfo, Flag},
    matching::MetadataMatcher,
    network_filter::{Connection, GateFilter, Gated, NetworkFilter, NetworkFilterFactory, hold::hold},
    server::Worker,
    stats::Stats,
    stats_block,
};

/// The namespace of what the service says.
const NAMESPACE: &str = "envoy.filters.network.ext_authz";

/// Envoy's default for an answer.
const TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);

stats_block! {
    /// `ext_authz.<stat_prefix>.*`
    struct ExtAuthzStats {
        counter total, "Questions";
        counter ok, "Connections that were allowed";
        counter denied, "Connections that were denied";
        counter error, "Questions without an answer";
        counter failure_mode_allowed, "Connections that passed because there was no answer";
        counter disabled, "Connections that were not asked about";
        counter cx_closed, "Connections closed";
        gauge active, "Questions that wait for an answer";
    }
}

/// The extension.
pub struct Factory;

impl NetworkFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.network.ext_authz";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<NetworkFilter> {
        coverage!(cx, proto => Proto {
            supported {
                stat_prefix, grpc_service, failure_mode_allow, include_peer_certificate, filter_enabled_metadata,
                bootstrap_metadata_labels_key, include_tls_session, metadata_context_namespaces
            }
            ignored {
                transport_api_version: "there is only V3",
                send_tls_alert_on_denial: "TLS connections are closed without an alert of their own",
                typed_metadata_context_namespaces: "filters leave no typed metadata here",
            }
            rejected { shadow_mode: "shadow mode" }
        });
        let unset = grpc_service.as_ref().is_some_and(|s| s.timeout.is_none());
        let mut service = cx.required("grpc_service", grpc_service, Target::build)?;
        if unset {
            service.timeout = Some(TIMEOUT);
        }
        Ok(NetworkFilter::Gate(Arc::new(ExtAuthz {
            service,
            failure_mode_allow,
            include_certificate: include_peer_certificate,
            include_tls_session,
            enabled: cx.opt(
                "filter_enabled_metadata",
                filter_enabled_metadata,
                MetadataMatcher::build,
            )?,
            labels: labels(&bootstrap_metadata_labels_key, cx),
            namespaces: metadata_context_namespaces,
            stats: cx.server.stats.scope(&format!("ext_authz.{stat_prefix}.")).block(),
        })))
    }
}

/// The texts of the node's metadata under `key`.
fn labels(key: &str, cx: &BuildCx<'_>) -> HashMap<String, String> {
    let metadata = cx.server.node.metadata.as_ref().and_then(|m| m.fields.get(key));
    match metadata.and_then(|v| v.kind.as_ref()) {
        Some(Kind::StructValue(labels)) if !key.is_empty() => labels
            .fields
            .iter()
            .map(|(name, value)| {
                let text = match &value.kind {
                    Some(Kind::StringValue(text)) => text.clone(),
                    _ => String::new(),
                };
                (name.clone(), text)
            })
            .collect(),
        _ => HashMap::new(),
    }
}

struct ExtAuthz {
    service: Target,
    failure_mode_allow: bool,
    include_certificate: bool,
    include_tls_session: bool,
    /// `filter_enabled_metadata`: only connections whose metadata says so are asked about.
    enabled: Option<MetadataMatcher>,
    /// `bootstrap_metadata_labels_key`: labels of the destination.
    labels: HashMap<String, String>,
    namespaces: Vec<String>,
    stats: Stats<ExtAuthzStats>,
}

impl GateFilter for ExtAuthz {
    fn on_connection(
        self: Arc<Self>,
        worker: Rc<Worker>,
        mut connection: Connection,
    ) -> LocalBoxFuture<'static, Gated> {
        let (stream, held) = hold(connection.stream, &connection.info.held);
        connection.stream = stream;
        let info = connection.info.clone();
        connection.guards.push(Box::pin(async move {
            held.bytes().await;
            while !self.is_enabled(&info) {
                self.stats.local().disabled.inc();
                held.pass();
                held.bytes().await;
            }
            if self.allows(&info, worker).await {
                held.open();
                pending::<()>().await;
            }
        }));
        Box::pin(async { Gated::Pass(connection) })
    }
}

/// A question is on its way, whatever becomes of it.
struct Active<'a>(&'a ExtAuthzStats);

impl<'a> Active<'a> {
    fn new(stats: &'a ExtAuthzStats) -> Self {
        stats.total.inc();
        stats.active.inc();
        Self(stats)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

impl ExtAuthz {
    /// Whether the connection is to be asked about; until it is, every read is looked at.
    fn is_enabled(&self, info: &ConnectionInfo) -> bool {
        let metadata = info.metadata.borrow();
        self.enabled
            .as_ref()
            .is_none_or(|matcher| matcher.matches(|name| metadata.get(name)))
    }

    async fn allows(&self, info: &Rc<ConnectionInfo>, worker: Rc<Worker>) -> bool {
        let stats = self.stats.local();
        let begun = Instant::now();
        let answer = {
            let _active = Active::new(stats);
            ask(&self.service, self.question(info), worker, None).await
        };
        let (allowed, details) = match answer {
            Some(answer) => self.answered(answer, begun, info),
            None => {
                stats.error.inc();
                if self.failure_mode_allow {
                    stats.failure_mode_allowed.inc();
                }
                (self.failure_mode_allow, "ext_authz_error")
            }
        };
        if !allowed {
            stats.cx_closed.inc();
            info.fail(Flag::UnauthorizedExternalService, details);
        }
        allowed
    }

    fn answered(&self, answer: CheckResponse, begun: Instant, info: &ConnectionInfo) -> (bool, &'static str) {
        let allowed = answer.status.is_none_or(|s| s.code == 0);
        let mut said: Struct = answer.dynamic_metadata.unwrap_or_default();
        let stats = self.stats.local();
        match allowed {
            true => {
                stats.ok.inc();
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let took = Value {
                    kind: Some(Kind::NumberValue(took as f64)),
                };
                said.fields.insert("ext_authz_duration".to_owned(), took);
            }
            false => stats.denied.inc(),
        }
        if !said.fields.is_empty() {
            let mut metadata = info.metadata.borrow_mut();
            let ours = metadata.entry(NAMESPACE.to_owned()).or_default();
            ours.fields.extend(said.fields);
        }
        (allowed, "ext_authz_denied")
    }

    fn question(&self, info: &ConnectionInfo) -> CheckRequest {
        let tls = info.tls.as_deref();
        let certificate = match (self.include_certificate, tls) {
            (true, Some(tls)) => tls.peer.url_encoded_pem.clone(),
            _ => String::new(),
        };
        let metadata = info.metadata.borrow();
        let told = self
            .namespaces
            .iter()
            .filter_map(|name| Some((name.clone(), metadata.get(name)?.clone())));
        let sni = info.server_name.as_deref().filter(|sni| !sni.is_empty());
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Peer {
                    certificate,
                    ..peer(&info.remote_address, tls.map(|t| &*t.peer))
                }),
                destination: Some(Peer {
                    labels: self.labels.clone(),
                    ..peer(&info.local_address, tls.map(|t| &*t.local))
                }),
                tls_session: sni
                    .filter(|_| self.include_tls_session)
                    .map(|sni| TlsSession { sni: sni.to_owned() }),
                metadata_context: Some(Metadata {
                    filter_metadata: told.collect(),
                    ..Metadata::default()
                }),
                ..AttributeContext::default()
            }),
        }
    }
}
