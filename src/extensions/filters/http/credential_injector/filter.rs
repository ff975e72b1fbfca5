//! One stream that gets a credential.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::Credential;
use crate::{
    http::{
        LocalReply, RequestHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    stats::Stats,
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.credential_injector.` statistics
    pub(super) struct InjectorStats {
        counter injected, "Requests that got the credential";
        counter failed, "Requests for which there was none";
        counter already_exists, "Requests that had one";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    pub overwrite: bool,
    /// `allow_request_without_credential`
    pub allow_without: bool,
    pub credential: Credential,
    pub stats: Stats<InjectorStats>,
}

pub(super) struct CredentialInjector(pub Arc<Config>);

impl HttpFilterConfig for CredentialInjector {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter(self.0.clone())))
    }
}

struct Filter(Arc<Config>);

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, _: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let (config, stats) = (&self.0, self.0.stats.local());
        let credential = &config.credential;
        if !config.overwrite && head.headers.contains_key(&credential.header) {
            stats.already_exists.inc();
            return Step::Continue;
        }
        let secret = credential.secret.get().filter(|s| !s.is_empty());
        let value = secret.and_then(|s| HeaderValue::from_bytes(&[credential.prefix.as_bytes(), &s].concat()).ok());
        if let Some(mut value) = value {
            value.set_sensitive(true);
            head.headers.insert(&credential.header, value);
            stats.injected.inc();
            return Step::Continue;
        }
        stats.failed.inc();
        if config.allow_without {
            return Step::Continue;
        }
        Step::Reply(Box::new(LocalReply::new(
            StatusCode::UNAUTHORIZED,
            "Failed to inject credential.",
            "failed_to_inject_credential",
        )))
    }
}
