//! Cluster specifier plug-ins (`envoy.router.cluster_specifier_plugin.*`): extensions that choose a route's cluster.

use std::{collections::HashMap, fmt, sync::Arc};

use xds_protos::{
    envoy::{
        config::{core::v3::TypedExtensionConfig, route::v3::ClusterSpecifierPlugin},
        extensions::router::cluster_specifiers::matcher::v3::{ClusterAction, MatcherClusterSpecifier},
    },
    google::protobuf::Any,
    prost::Name,
};

use super::ClusterSpecifier;
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    http::{RequestHead, StreamInfo},
    matching::tree::{MatchCx, MatchTarget, Matcher},
};

/// `cluster_specifier_plugins` of a route configuration, by name.
pub(super) type Plugins = HashMap<String, ClusterSpecifier>;

/// A matcher tree that leads to clusters (`envoy.router.cluster_specifier_plugin.matcher`).
pub struct ClusterMatcher(Matcher<Arc<str>>);

impl ClusterMatcher {
    /// The cluster of a request; empty, which no cluster is called, when the tree leads nowhere.
    pub(super) fn find(&self, head: &RequestHead, info: &StreamInfo) -> Arc<str> {
        let found = self.0.find(&MatchCx::request(info, head));
        found.cloned().unwrap_or_else(|| "".into())
    }
}

impl fmt::Debug for ClusterMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterMatcher").finish_non_exhaustive()
    }
}

/// Builds the plug-ins that routes name.
pub(super) fn build_named(protos: Vec<ClusterSpecifierPlugin>, cx: &mut BuildCx<'_>) -> ConfigResult<Plugins> {
    let plugins = cx.each("cluster_specifier_plugins", protos, |proto, cx| {
        let name = proto.extension.as_ref().map(|e| e.name.clone()).unwrap_or_default();
        Ok((name, build(proto, cx)?))
    })?;
    let mut by_name = Plugins::new();
    for (name, plugin) in plugins {
        // The first of a name stays.
        by_name.entry(name).or_insert(plugin);
    }
    Ok(by_name)
}

/// Builds one plug-in; an optional one that is not known matches no request.
pub(super) fn build(proto: ClusterSpecifierPlugin, cx: &mut BuildCx<'_>) -> ConfigResult<ClusterSpecifier> {
    coverage!(cx, proto => ClusterSpecifierPlugin { supported { extension, is_optional } });
    let TypedExtensionConfig { name, typed_config } = extension.unwrap_or_default();
    let any = plain(typed_config.unwrap_or_default(), cx)?;
    match any.type_name() {
        kind if kind == MatcherClusterSpecifier::full_name() => {
            let proto: MatcherClusterSpecifier = unpack(&any, cx)?;
            coverage!(cx, proto => MatcherClusterSpecifier { supported { cluster_matcher } });
            let tree = cx.required("cluster_matcher", cluster_matcher, |m, cx| {
                Matcher::build(m, &mut Target, cx)
            })?;
            Ok(ClusterSpecifier::Matcher(Arc::new(ClusterMatcher(tree))))
        }
        _ if is_optional => Ok(ClusterSpecifier::Never),
        kind => Err(cx.error(format!(
            "Didn't find a registered implementation for '{name}' with type URL: '{kind}'"
        ))),
    }
}

struct Target;

impl MatchTarget for Target {
    type Action = Arc<str>;

    fn allows(&self, _input: &str) -> Result<(), String> {
        Ok(())
    }

    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<str>> {
        if config.type_name() != ClusterAction::full_name() {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                config.type_name()
            )));
        }
        let proto: ClusterAction = unpack(&config, cx)?;
        coverage!(cx, proto => ClusterAction { supported { cluster } });
        Ok(cluster.into())
    }
}
