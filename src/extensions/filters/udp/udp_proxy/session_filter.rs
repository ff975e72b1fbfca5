//! Session filters: what stands between a session's client and its host, and may change datagrams both ways.

use std::sync::Arc;

use xds_protos::prost::{Message, Name};

use crate::config::{BuildCx, ConfigResult};

/// What a session filter extension is, typed for its author.
pub trait UdpSessionFilterFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.filters.udp.session.http_capsule`.
    const NAME: &'static str;
    /// The filter's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the configuration that all sessions share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn UdpSessionFilter>>;
}

/// A session filter as configured.
pub trait UdpSessionFilter: Send + Sync {
    /// The filter of a new session.
    fn create(&self) -> Box<dyn SessionFilter>;
}

/// A session filter in its session.
pub trait SessionFilter {
    /// The session begins. False: there is no host for it (yet), and its datagrams stay with the filter.
    fn on_new_session(&mut self) -> bool {
        true
    }

    /// A datagram of the client; `next` is given what goes on, once, never or several times.
    fn on_data(&mut self, bytes: &[u8], next: &mut dyn FnMut(&[u8]));

    /// A datagram of the host, likewise.
    fn on_write(&mut self, bytes: &[u8], next: &mut dyn FnMut(&[u8]));
}

/// From the client through the filters in their order.
pub(super) fn pass_read(filters: &mut [Box<dyn SessionFilter>], bytes: &[u8], end: &mut dyn FnMut(&[u8])) {
    match filters.split_first_mut() {
        None => end(bytes),
        Some((first, rest)) => first.on_data(bytes, &mut |bytes| pass_read(rest, bytes, end)),
    }
}

/// From the host through the filters, the last one first.
pub(super) fn pass_write(filters: &mut [Box<dyn SessionFilter>], bytes: &[u8], end: &mut dyn FnMut(&[u8])) {
    match filters.split_last_mut() {
        None => end(bytes),
        Some((last, rest)) => last.on_write(bytes, &mut |bytes| pass_write(rest, bytes, end)),
    }
}
