//! The stream handle: what `envoy_on_request` and `envoy_on_response` are given.

use std::{
    net::IpAddr,
    rc::Rc,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mlua::{Function, IntoLua, Lua, MultiValue, Table, UserData, UserDataFields, UserDataMethods, UserDataRef, Value};
use xds_protos::{envoy::config::core::v3::Metadata as ProtoMetadata, google::protobuf::Struct};

use super::{
    buffer::Buffer,
    call::{self, Call},
    crypto,
    headers::Headers,
    info::{Connection, ConnectionStreamInfo, StreamInfo},
    metadata::{MetadataMap, one},
    stream::{Op, Stream, out_of_scope},
    vm::FUNCTIONS,
};
use crate::http::{LocalReply, filter::OverrideHost};

/// The name under which Envoy also looks for route metadata.
const CANONICAL: &str = "envoy.filters.http.lua";

/// A stream in a script's hands.
pub(super) struct Handle(pub Rc<Stream>);

impl Handle {
    fn live(&self) -> mlua::Result<&Rc<Stream>> {
        match self.0.loan.borrow().is_some() {
            true => Ok(&self.0),
            false => Err(out_of_scope()),
        }
    }
}

impl UserData for Handle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        // What may wait is Lua around Rust: only Lua can yield.
        for name in ["body", "bodyChunks", "trailers", "httpCall", "respond"] {
            fields.add_field_method_get(name, move |lua, _| {
                lua.named_registry_value::<Table>(FUNCTIONS)?.get::<Function>(name)
            });
        }
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("headers", |_, this, ()| Ok(Headers::new(this.live()?)));
        methods.add_method("streamInfo", |_, this, ()| Ok(StreamInfo(this.live()?.clone())));
        methods.add_method("connection", |_, this, ()| Ok(Connection(this.live()?.clone())));
        methods.add_method("connectionStreamInfo", |_, this, ()| {
            Ok(ConnectionStreamInfo(this.live()?.clone()))
        });
        methods.add_method("metadata", |_, this, ()| {
            let stream = this.live()?;
            let metadata = stream.facts.route.as_ref().and_then(|r| r.metadata.as_deref());
            let name = &*stream.facts.filter_name;
            Ok(of_filter(metadata, name)
                .or_else(|| of_filter(metadata, CANONICAL))
                .unwrap_or_default())
        });
        methods.add_method("filterContext", |_, this, ()| {
            Ok(MetadataMap(this.live()?.facts.context.clone()))
        });
        methods.add_method("route", |_, this, ()| {
            let stream = this.live()?;
            let metadata = stream.facts.route.as_ref().and_then(|r| r.metadata.as_deref());
            Ok(Holder(
                of_filter(metadata, &stream.facts.filter_name).unwrap_or_default(),
            ))
        });
        methods.add_method("virtualHost", |_, this, ()| {
            let stream = this.live()?;
            let route = stream.facts.route.as_ref();
            let metadata = route.and_then(|r| r.virtual_host().metadata.as_deref());
            Ok(Holder(
                of_filter(metadata, &stream.facts.filter_name).unwrap_or_default(),
            ))
        });
        methods.add_method("clearRouteCache", |_, this, ()| {
            this.live()?.wishes.borrow_mut().clear_route_cache = true;
            Ok(())
        });
        methods.add_method(
            "setUpstreamOverrideHost",
            |_, this, (host, strict): (String, Option<Value>)| {
                let strict = match strict {
                    None | Some(Value::Nil) => false,
                    Some(Value::Boolean(strict)) => strict,
                    Some(_) => return Err(mlua::Error::runtime("bad argument #2: boolean expected")),
                };
                if !is_ip_address(&host) {
                    return Err(mlua::Error::runtime("host is not a valid IP address"));
                }
                this.live()?.wishes.borrow_mut().override_host = Some(OverrideHost {
                    address: host.into(),
                    strict,
                    not_found: StatusCode::SERVICE_UNAVAILABLE,
                });
                Ok(())
            },
        );
        methods.add_method("base64Escape", |_, _, text: mlua::String| {
            Ok(STANDARD.encode(&*text.as_bytes()))
        });
        methods.add_method("timestamp", |_, _, format: Option<i64>| match format {
            None | Some(0) => Ok(now().as_millis() as f64),
            Some(_) => Err(mlua::Error::runtime("timestamp format must be MILLISECOND.")),
        });
        methods.add_method("timestampString", |_, _, resolution: Option<i64>| match resolution {
            None | Some(0) => Ok(now().as_millis().to_string()),
            Some(1) => Ok(now().as_micros().to_string()),
            Some(_) => Err(mlua::Error::runtime(
                "timestamp format must be MILLISECOND or MICROSECOND.",
            )),
        });
        methods.add_method("importPublicKey", |_, _, (der, length): (mlua::String, usize)| {
            let der = der.as_bytes();
            let der = der.get(..length).unwrap_or(&der);
            Ok(PublicKey(
                crypto::is_public_key(der).then(|| Bytes::copy_from_slice(der)),
            ))
        });
        type Signed = (String, mlua::String, mlua::String, usize, mlua::String, usize);
        methods.add_method("verifySignature", |_, _, (hash, key, signed, n, text, m): Signed| {
            let (key, signed, text) = (key.as_bytes(), signed.as_bytes(), text.as_bytes());
            if !crypto::is_public_key(&key) {
                return Err(mlua::Error::runtime("invalid public key"));
            }
            let cut = |bytes: &[u8], n: usize| bytes.get(..n).unwrap_or(bytes).to_vec();
            match crypto::verify(&hash, &key, &cut(&signed, n), &cut(&text, m)) {
                Ok(()) => Ok((true, None)),
                Err(reason) => Ok((false, Some(reason))),
            }
        });
        log_methods(methods);
    }
}

fn log_methods<M: UserDataMethods<Handle>>(methods: &mut M) {
    macro_rules! log {
        ($($name:literal => $level:ident),*) => {
            $(methods.add_method($name, |_, _, text: mlua::String| {
                tracing::$level!(target: "lua", "script log: {}", text.to_string_lossy());
                Ok(())
            });)*
        };
    }
    log!("logTrace" => trace, "logDebug" => debug, "logInfo" => info, "logWarn" => warn, "logErr" => error,
        "logCritical" => error);
}

/// The functions that may have to wait; the first result says whether the coroutine has to yield.
pub(super) fn waiting(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let stop = |stream: &Stream, op: Op| {
        stream.op.replace(Some(op));
        Ok(one(Value::Boolean(true)))
    };
    let found = |value: Option<Value>| {
        let flag = std::iter::once(Value::Boolean(false));
        Ok(MultiValue::from_iter(flag.chain(value)))
    };
    table.set(
        "body",
        lua.create_function(move |lua, (handle, always): (UserDataRef<Handle>, Option<Value>)| {
            let stream = handle.live()?;
            let always = match always {
                None => false,
                Some(Value::Boolean(always)) => always,
                Some(_) => return Err(mlua::Error::runtime("bad argument #1 to 'body' (boolean expected)")),
            };
            match (stream.ended.get(), stream.saw_body.get(), stream.whole.get()) {
                (true, true, false) => Err(mlua::Error::runtime("cannot call body() after body has been streamed")),
                (true, _, _) => match Buffer::whole(stream, always, stream.epoch.get()) {
                    Some(buffer) => found(Some(Value::UserData(lua.create_userdata(buffer)?))),
                    None => found(None),
                },
                (false, true, _) => Err(mlua::Error::runtime(
                    "cannot call body() after body streaming has started",
                )),
                (false, false, _) => {
                    stream.whole.set(true);
                    stop(stream, Op::Body { always })
                }
            }
        })?,
    )?;
    table.set(
        "chunks",
        lua.create_function(|_, handle: UserDataRef<Handle>| match handle.live()?.saw_body.get() {
            true => Err(mlua::Error::runtime(
                "cannot call bodyChunks after body processing has begun",
            )),
            false => Ok(()),
        })?,
    )?;
    table.set(
        "chunk",
        lua.create_function(move |_, handle: UserDataRef<Handle>| {
            let stream = handle.live()?;
            match stream.ended.get() {
                true => found(None),
                false => stop(stream, Op::Chunk),
            }
        })?,
    )?;
    table.set(
        "trailers",
        lua.create_function(move |lua, handle: UserDataRef<Handle>| {
            let stream = handle.live()?;
            if stream.trailers.borrow().is_some() {
                let headers = Headers::trailers(stream, stream.epoch.get());
                return found(Some(Value::UserData(lua.create_userdata(headers)?)));
            }
            match stream.ended.get() {
                true => found(None),
                false => stop(stream, Op::Trailers),
            }
        })?,
    )?;
    table.set(
        "httpCall",
        lua.create_function(move |_, (handle, args): (UserDataRef<Handle>, MultiValue)| {
            let stream = handle.live()?;
            let call = Call::new(&stream.facts.worker, stream.facts.span.clone(), args)?;
            match call.asynchronous {
                true => {
                    call::spawn(call);
                    found(None)
                }
                false => stop(stream, Op::Call(Box::new(call))),
            }
        })?,
    )?;
    table.set(
        "respond",
        lua.create_function(
            move |_, (handle, headers, body): (UserDataRef<Handle>, Table, Option<mlua::String>)| {
                let stream = handle.live()?;
                if stream.continued.get() {
                    return Err(mlua::Error::runtime(
                        "respond() cannot be called if headers have been continued",
                    ));
                }
                let reply = local_reply(headers, body)?;
                if !stream.request {
                    return Err(mlua::Error::runtime(
                        "respond not currently supported in the response path",
                    ));
                }
                stop(stream, Op::Respond(Box::new(reply)))
            },
        )?,
    )?;
    Ok(table)
}

fn local_reply(headers: Table, body: Option<mlua::String>) -> mlua::Result<LocalReply> {
    let mut status = None;
    let mut map = HeaderMap::new();
    each_header(headers, |name, value| {
        if name == ":status" {
            status = str::from_utf8(value).ok().and_then(|v| v.parse::<u16>().ok());
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    })?;
    let status = status
        .filter(|s| (200..600).contains(s))
        .and_then(|s| StatusCode::from_u16(s).ok())
        .ok_or_else(|| mlua::Error::runtime(":status must be between 200-599"))?;
    let body = body.map(|b| Bytes::copy_from_slice(&b.as_bytes())).unwrap_or_default();
    map.remove(header::CONTENT_LENGTH);
    let mut reply = LocalReply::new(status, body, "lua_response");
    reply.headers = map;
    Ok(reply)
}

/// The headers of a table: a value may be a string, or a table of them.
pub(super) fn each_header(table: Table, mut f: impl FnMut(&str, &[u8])) -> mlua::Result<()> {
    for pair in table.pairs::<String, Value>() {
        let (name, value) = pair?;
        let name = name.to_ascii_lowercase();
        match value {
            Value::Table(values) => {
                for value in values.sequence_values::<mlua::String>() {
                    f(&name, &value?.as_bytes());
                }
            }
            Value::String(value) => f(&name, &value.as_bytes()),
            Value::Integer(value) => f(&name, value.to_string().as_bytes()),
            Value::Number(value) => f(&name, value.to_string().as_bytes()),
            other => {
                let text = format!("bad header value (string expected, got {})", other.type_name());
                return Err(mlua::Error::runtime(text));
            }
        }
    }
    Ok(())
}

impl Default for MetadataMap {
    fn default() -> Self {
        Self(Struct::default().into())
    }
}

fn of_filter(metadata: Option<&ProtoMetadata>, name: &str) -> Option<MetadataMap> {
    let of = metadata?.filter_metadata.get(name)?;
    Some(MetadataMap(of.clone().into()))
}

/// A route or a virtual host: something that has metadata.
struct Holder(MetadataMap);

impl UserData for Holder {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("metadata", |_, this, ()| Ok(MetadataMap(this.0.0.clone())));
    }
}

/// An imported key; without bytes what was imported was none.
struct PublicKey(Option<Bytes>);

impl UserData for PublicKey {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, ()| match &this.0 {
            Some(der) => lua.create_string(der)?.into_lua(lua),
            None => Ok(Value::Nil),
        });
    }
}

/// An address, with or without a port.
fn is_ip_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok() || host.parse::<std::net::SocketAddr>().is_ok()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
