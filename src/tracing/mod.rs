//! Distributed tracing: spans of requests and of what the proxy does for them.
//!
//! The connection manager starts a span when the route of a request is known and finishes it when the stream ends
//! ([`tags`] says what is told of it then); the router gives each attempt a child if it is asked to, and filters give
//! one to each of their calls. A [`Tracer`] is an extension: it reads and writes the headers of its protocol and
//! reports what is finished. Spans never leave their worker; a [`Reporter`] of that worker gathers and sends them, so
//! that no request waits for a collector.
//!
//! A request that is not traced costs a branch: there is no span then.

mod call;
mod config;
mod custom_tag;
mod reporter;
mod span;
pub mod tags;
#[cfg(test)]
mod tests;
mod tracers;

use std::sync::Arc;

use http::HeaderMap;
use xds_protos::prost::{Message, Name};

pub use call::CallSpan;
pub use config::{Config, check_bootstrap, of_bootstrap, provider};
pub use custom_tag::{CustomTag, values as custom_tags};
pub use reporter::{Batching, Export, Reporter};
pub use span::{Context, Direction, Kind, Relation, Root, Span, SpanData};
pub use tracers::Tracers;

use crate::config::{BuildCx, ConfigResult};

/// What an author of a tracer writes; a blanket impl erases it for the registry.
pub trait TracerFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.tracers.zipkin`.
    const NAME: &'static str;
    /// The extension's configuration message.
    type Proto: Message + Name + Default;

    /// Builds the tracer that all connection managers with this configuration share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn Tracer>>;
}

/// A built tracer: shared by all workers.
pub trait Tracer: Send + Sync {
    /// The span of a request that comes in. None when its headers cannot be understood: it is left alone then.
    fn start(&self, root: &Root<'_>) -> Option<SpanData>;

    /// A span below `parent`.
    fn child(&self, parent: &Context, name: &str, relation: Relation) -> SpanData;

    /// Tells whoever receives these headers of the span.
    fn inject(&self, span: &Context, headers: &mut HeaderMap);

    /// Takes a finished span of this worker; only those that are sampled come here.
    fn report(&self, span: SpanData, worker: usize);

    /// `%TRACE_ID%`
    fn trace_id(&self, span: &Context) -> String;

    /// `%SPAN_ID%`; not every tracer tells.
    fn span_id(&self, span: &Context) -> Option<String>;
}
