//! `streamInfo()`, `connection()` and what hangs on them.

use std::{rc::Rc, sync::Arc};

use http::Version;
use mlua::{Lua, UserData, UserDataMethods, Value};

use super::{
    metadata::{ConnectionMetadata, DynamicMetadata, nothing, one},
    stream::Stream,
};
use crate::http::stream_info::TlsInfo;

/// `streamInfo()`
pub(super) struct StreamInfo(pub Rc<Stream>);

impl UserData for StreamInfo {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("protocol", |_, this, ()| {
            Ok(match this.0.facts.protocol {
                Some(Version::HTTP_10) => "HTTP/1.0",
                Some(Version::HTTP_2) => "HTTP/2",
                Some(Version::HTTP_3) => "HTTP/3",
                _ => "HTTP/1.1",
            })
        });
        methods.add_method("routeName", |_, this, ()| {
            let route = this.0.facts.route.as_ref();
            Ok(route.map_or_else(String::new, |r| r.name.to_string()))
        });
        methods.add_method("virtualClusterName", |_, this, ()| {
            Ok(this.0.facts.virtual_cluster.as_deref().unwrap_or_default().to_owned())
        });
        methods.add_method("downstreamLocalAddress", |_, this, ()| {
            Ok(this.0.facts.connection.local_address.to_string())
        });
        methods.add_method("downstreamDirectLocalAddress", |_, this, ()| {
            Ok(this.0.facts.connection.local_address.to_string())
        });
        methods.add_method("downstreamDirectRemoteAddress", |_, this, ()| {
            Ok(this.0.facts.connection.direct_remote_address.to_string())
        });
        methods.add_method("downstreamRemoteAddress", |_, this, ()| {
            Ok(this.0.facts.remote_address.to_string())
        });
        methods.add_method("requestedServerName", |_, this, ()| {
            let name = this.0.facts.connection.server_name.as_deref();
            Ok(name.unwrap_or_default().to_owned())
        });
        methods.add_method("downstreamSslConnection", |_, this, ()| {
            Ok(this.0.facts.connection.tls.clone().map(Ssl))
        });
        methods.add_method("dynamicMetadata", |_, this, ()| Ok(DynamicMetadata(this.0.clone())));
        // No filter leaves typed metadata.
        methods.add_method("dynamicTypedMetadata", |_, _, _: String| Ok(Value::Nil));
        methods.add_method("filterState", |_, this, ()| Ok(FilterState(this.0.clone())));
        methods.add_method("drainConnectionUponCompletion", |_, this, ()| {
            this.0.wishes.borrow_mut().drain = true;
            Ok(())
        });
    }
}

struct FilterState(Rc<Stream>);

impl UserData for FilterState {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, (name, field): (String, Option<String>)| {
            this.0.with(|loan| {
                let connection = this.0.facts.connection.filter_state.borrow();
                let object = loan.filter_state.get(&name).or_else(|| connection.get(&name));
                let text = object.and_then(|o| match &field {
                    Some(field) => o.field(field).map(|v| v.into_owned()),
                    None => o.as_text().map(|v| v.into_owned()),
                });
                Ok(match text {
                    Some(text) => one(Value::String(lua.create_string(text)?)),
                    None => nothing(),
                })
            })
        });
    }
}

/// `connectionStreamInfo()`
pub(super) struct ConnectionStreamInfo(pub Rc<Stream>);

impl UserData for ConnectionStreamInfo {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("dynamicMetadata", |_, this, ()| Ok(ConnectionMetadata(this.0.clone())));
        methods.add_method("dynamicTypedMetadata", |_, _, _: String| Ok(Value::Nil));
    }
}

/// `connection()`
pub(super) struct Connection(pub Rc<Stream>);

impl UserData for Connection {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("ssl", |_, this, ()| Ok(this.0.facts.connection.tls.clone().map(Ssl)));
    }
}

/// What a TLS handshake settled.
struct Ssl(Arc<TlsInfo>);

impl UserData for Ssl {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        macro_rules! texts {
            ($($name:literal => $get:expr),* $(,)?) => {
                $(methods.add_method($name, |lua: &Lua, this, ()| {
                    let get: fn(&TlsInfo) -> &str = $get;
                    lua.create_string(get(&this.0))
                });)*
            };
        }
        macro_rules! lists {
            ($($name:literal => $get:expr),* $(,)?) => {
                $(methods.add_method($name, |lua: &Lua, this, ()| {
                    let get: fn(&TlsInfo) -> &[String] = $get;
                    lua.create_sequence_from(get(&this.0).iter().map(String::as_str))
                });)*
            };
        }
        texts! {
            "sha256PeerCertificateDigest" => |t| &t.peer.sha256,
            "serialNumberPeerCertificate" => |t| &t.peer.serial,
            "issuerPeerCertificate" => |t| &t.peer.issuer,
            "subjectPeerCertificate" => |t| &t.peer.subject,
            "subjectLocalCertificate" => |t| &t.local.subject,
            "urlEncodedPemEncodedPeerCertificate" => |t| &t.peer.url_encoded_pem,
            "urlEncodedPemEncodedPeerCertificateChain" => |t| &t.peer.url_encoded_chain,
            "sessionId" => |t| &t.session_id,
            "ciphersuiteString" => |t| t.cipher,
            "tlsVersion" => |t| t.version,
        }
        lists! {
            "uriSanLocalCertificate" => |t| &t.local.uri_sans,
            "uriSanPeerCertificate" => |t| &t.peer.uri_sans,
            "dnsSansPeerCertificate" => |t| &t.peer.dns_sans,
            "dnsSansLocalCertificate" => |t| &t.local.dns_sans,
            // Extensions by number are not kept.
            "oidsPeerCertificate" => |_| &[],
            "oidsLocalCertificate" => |_| &[],
        }
        methods.add_method("peerCertificatePresented", |_, this, ()| Ok(this.0.peer_presented));
        methods.add_method("peerCertificateValidated", |_, this, ()| Ok(this.0.peer_validated));
        methods.add_method("validFromPeerCertificate", |_, this, ()| Ok(this.0.peer.not_before));
        methods.add_method("expirationPeerCertificate", |_, this, ()| Ok(this.0.peer.not_after));
        methods.add_method("ciphersuiteId", |_, this, ()| {
            Ok(match this.0.cipher {
                "TLS_AES_128_GCM_SHA256" => "0x1301",
                "TLS_AES_256_GCM_SHA384" => "0x1302",
                "TLS_CHACHA20_POLY1305_SHA256" => "0x1303",
                "ECDHE-ECDSA-AES128-GCM-SHA256" => "0xc02b",
                "ECDHE-ECDSA-AES256-GCM-SHA384" => "0xc02c",
                "ECDHE-RSA-AES128-GCM-SHA256" => "0xc02f",
                "ECDHE-RSA-AES256-GCM-SHA384" => "0xc030",
                "ECDHE-RSA-CHACHA20-POLY1305" => "0xcca8",
                "ECDHE-ECDSA-CHACHA20-POLY1305" => "0xcca9",
                _ => "0xffff",
            })
        });
        methods.add_method("parsedSubjectPeerCertificate", |_, this, ()| {
            Ok(this.0.peer_presented.then(|| Name(this.0.peer.subject.clone())))
        });
    }
}

/// A name in RFC 2253 form, taken apart.
struct Name(String);

impl Name {
    fn parts<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let parts = self.0.split(['+', ',']).filter_map(|part| part.split_once('='));
        parts.filter(move |(name, _)| *name == key).map(|(_, value)| value)
    }
}

impl UserData for Name {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("commonName", |_, this, ()| {
            Ok(this.parts("CN").next().unwrap_or_default().to_owned())
        });
        methods.add_method("organizationName", |lua, this, ()| {
            lua.create_sequence_from(this.parts("O"))
        });
    }
}
