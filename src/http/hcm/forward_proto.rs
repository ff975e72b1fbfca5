//! What `x-forwarded-proto` says where nobody said it: by TLS, or by the port that PROXY protocol told of.

use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::ForwardProtoConfig as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    http::{ConnectionInfo, Scheme},
};

/// `forward_proto_config`
#[derive(Debug, Default)]
pub struct ForwardProto {
    /// `https_destination_ports`
    https: Vec<u32>,
    /// `http_destination_ports`
    http: Vec<u32>,
}

impl ForwardProto {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { https_destination_ports, http_destination_ports } });
        Ok(Self {
            https: https_destination_ports,
            http: http_destination_ports,
        })
    }

    /// The protocol that the client spoke to whoever it connected to.
    pub(super) fn protocol(&self, connection: &ConnectionInfo) -> Scheme {
        let port = match connection.local_address_restored {
            true => connection.local_address.port().map(u32::from),
            false => None,
        };
        match port {
            Some(port) if self.https.contains(&port) => Scheme::Https,
            Some(port) if self.http.contains(&port) => Scheme::Http,
            _ if connection.tls.is_some() => Scheme::Https,
            _ => Scheme::Http,
        }
    }
}
