//! The header object: a head's headers, pseudo-headers included, or trailers.

use std::{cell::Cell, rc::Rc, str::FromStr};

use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataMethods, Value};

use super::{
    metadata::nothing,
    stream::{Head, Stream},
};
use crate::http::{Path, Scheme};

/// Headers that Envoy keeps one value of: another one is joined to it.
const SINGLE: [&str; 12] = [
    "content-type",
    "content-length",
    "user-agent",
    "host",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "connection",
    "te",
    "via",
    "server",
    "date",
];

/// Headers or trailers, for one run of the script.
pub(super) struct Headers {
    stream: Rc<Stream>,
    trailers: bool,
    epoch: u64,
    iterating: Rc<Cell<bool>>,
}

impl Headers {
    /// The head's.
    pub fn new(stream: &Rc<Stream>) -> Self {
        Self::of(stream, false, stream.epoch.get())
    }

    /// Those after the body, for the run of this number.
    pub fn trailers(stream: &Rc<Stream>, epoch: u64) -> Self {
        Self::of(stream, true, epoch)
    }

    fn of(stream: &Rc<Stream>, trailers: bool, epoch: u64) -> Self {
        Self {
            stream: stream.clone(),
            trailers,
            epoch,
            iterating: if trailers {
                Rc::default()
            } else {
                stream.iterating.clone()
            },
        }
    }

    /// Runs `f` on what is there.
    fn read<T>(&self, f: impl FnOnce(View<'_>) -> T) -> mlua::Result<T> {
        self.stream.check(self.epoch)?;
        if self.trailers {
            let mut trailers = self.stream.trailers.borrow_mut();
            return Ok(f(View {
                pseudo: None,
                headers: trailers.get_or_insert_default(),
            }));
        }
        self.stream.with(|loan| Ok(f(View::of(&mut loan.head))))
    }

    /// The same, where it may be changed.
    fn change<T>(&self, f: impl FnOnce(View<'_>) -> T) -> mlua::Result<T> {
        self.stream.check(self.epoch)?;
        if self.iterating.get() {
            return Err(mlua::Error::runtime("header map cannot be modified while iterating"));
        }
        if !self.trailers {
            if self.stream.continued.get() {
                return Err(mlua::Error::runtime("header map can no longer be modified"));
            }
            if self.stream.facts.clears_route_cache {
                self.stream.wishes.borrow_mut().clear_route_cache = true;
            }
        }
        self.read(f)
    }
}

/// A head or trailers.
struct View<'a> {
    pseudo: Option<Pseudo<'a>>,
    headers: &'a mut HeaderMap,
}

enum Pseudo<'a> {
    Request {
        method: &'a mut Method,
        scheme: &'a mut Scheme,
        authority: &'a mut Option<HeaderValue>,
        path: &'a mut Option<Path>,
        protocol: &'a mut Option<ByteString>,
    },
    Response(&'a mut StatusCode),
}

impl<'a> View<'a> {
    fn of(head: &'a mut Head) -> Self {
        match head {
            Head::Request(head) => Self {
                pseudo: Some(Pseudo::Request {
                    method: &mut head.method,
                    scheme: &mut head.scheme,
                    authority: &mut head.authority,
                    path: &mut head.path,
                    protocol: &mut head.protocol,
                }),
                headers: &mut head.headers,
            },
            Head::Response(head) => Self {
                pseudo: Some(Pseudo::Response(&mut head.status)),
                headers: &mut head.headers,
            },
        }
    }

    /// All values of a header.
    fn values(&self, name: &str) -> Vec<Vec<u8>> {
        let name = name.to_ascii_lowercase();
        match self.pseudo_value(&name) {
            Some(value) => vec![value],
            None => self
                .headers
                .get_all(name)
                .iter()
                .map(|v| v.as_bytes().to_vec())
                .collect(),
        }
    }

    fn pseudo_value(&self, name: &str) -> Option<Vec<u8>> {
        match self.pseudo.as_ref()? {
            Pseudo::Request {
                method,
                scheme,
                authority,
                path,
                protocol,
            } => match name {
                ":method" => Some(method.as_str().into()),
                ":scheme" => Some(scheme.as_str().into()),
                ":authority" | "host" => authority.as_ref().map(|v| v.as_bytes().to_vec()),
                ":path" => path.as_ref().map(|p| p.as_str().into()),
                ":protocol" => protocol.as_ref().map(|p| p.as_bytes().to_vec()),
                _ => None,
            },
            Pseudo::Response(status) => (name == ":status").then(|| status.as_str().into()),
        }
    }

    /// Every header in its order, pseudo-headers first.
    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let pseudo = [":authority", ":path", ":method", ":scheme", ":protocol", ":status"];
        let pseudo = pseudo
            .iter()
            .filter_map(|name| Some((name.as_bytes().to_vec(), self.pseudo_value(name)?)));
        let headers = self.headers.iter();
        let headers = headers.map(|(n, v)| (n.as_str().as_bytes().to_vec(), v.as_bytes().to_vec()));
        pseudo.chain(headers).collect()
    }

    fn set(self, name: &str, value: &[u8]) {
        let name = name.to_ascii_lowercase();
        let Ok(header) = HeaderValue::from_bytes(value) else {
            return;
        };
        if (name.starts_with(':') || name == "host") && self.pseudo.is_some() {
            return self.set_pseudo(&name, header);
        }
        if let Ok(name) = HeaderName::from_str(&name) {
            self.headers.insert(name, header);
        }
    }

    /// Sets a pseudo-header; what is no value of its kind leaves it as it is.
    fn set_pseudo(self, name: &str, value: HeaderValue) {
        let text = value.to_str().unwrap_or_default();
        match self.pseudo {
            Some(Pseudo::Request {
                method,
                scheme,
                authority,
                path,
                protocol,
            }) => match name {
                ":method" => *method = Method::from_str(text).unwrap_or_else(|_| method.clone()),
                ":scheme" if text.eq_ignore_ascii_case("https") => *scheme = Scheme::Https,
                ":scheme" if text.eq_ignore_ascii_case("http") => *scheme = Scheme::Http,
                ":path" => *path = Path::new(text.to_owned()).or_else(|| path.take()),
                ":protocol" => *protocol = Some(text.into()),
                ":authority" | "host" => *authority = Some(value),
                _ => {}
            },
            Some(Pseudo::Response(status)) if name == ":status" => {
                *status = StatusCode::from_str(text).unwrap_or(*status);
            }
            _ => {}
        }
    }

    fn add(self, name: &str, value: &[u8]) {
        let lower = name.to_ascii_lowercase();
        let single = lower.starts_with(':') || SINGLE.contains(&lower.as_str());
        if single && let Some(old) = self.values(&lower).first() {
            let mut joined = old.clone();
            joined.push(b',');
            joined.extend_from_slice(value);
            return self.set(&lower, &joined);
        }
        match (HeaderName::from_str(&lower), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if !single => {
                self.headers.append(name, value);
            }
            _ => self.set(&lower, value),
        }
    }

    fn remove(self, name: &str) {
        let name = name.to_ascii_lowercase();
        match (self.pseudo, name.as_str()) {
            (Some(Pseudo::Request { authority, .. }), ":authority" | "host") => *authority = None,
            (Some(Pseudo::Request { path, .. }), ":path") => *path = None,
            (Some(Pseudo::Request { protocol, .. }), ":protocol") => *protocol = None,
            _ => {
                self.headers.remove(name);
            }
        }
    }
}

fn string(lua: &Lua, bytes: &[u8]) -> mlua::Result<MultiValue> {
    Ok(MultiValue::from_iter([Value::String(lua.create_string(bytes)?)]))
}

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, name: String| {
            let values = this.read(|view| view.values(&name))?;
            match values.is_empty() {
                true => Ok(nothing()),
                false => string(lua, &values.join(&b","[..])),
            }
        });
        methods.add_method("getAtIndex", |lua, this, (name, index): (String, f64)| {
            let values = this.read(|view| view.values(&name))?;
            let value = (index >= 0.0).then(|| values.get(index as usize)).flatten();
            match value.filter(|v| !v.is_empty()) {
                Some(value) => string(lua, value),
                None => Ok(nothing()),
            }
        });
        methods.add_method("getNumValues", |_, this, name: String| {
            this.read(|view| view.values(&name).len())
        });
        methods.add_method("add", |_, this, (name, value): (String, mlua::String)| {
            this.change(|view| view.add(&name, &value.as_bytes()))
        });
        methods.add_method("replace", |_, this, (name, value): (String, mlua::String)| {
            this.change(|view| view.set(&name, &value.as_bytes()))
        });
        methods.add_method("remove", |_, this, name: String| this.change(|view| view.remove(&name)));
        methods.add_method("setHttp1ReasonPhrase", |_, this, _: String| {
            match this.stream.request || this.trailers {
                true => Err(mlua::Error::runtime("setHttp1ReasonPhrase only for response headers")),
                false => this.stream.check(this.epoch),
            }
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            if this.iterating.replace(true) {
                return Err(mlua::Error::runtime(
                    "cannot create a second iterator before completing the first",
                ));
            }
            let mut all = this.read(|view| view.all())?.into_iter();
            let iterating = this.iterating.clone();
            lua.create_function_mut(move |lua, _: mlua::MultiValue| match all.next() {
                Some((name, value)) => Ok((Some(lua.create_string(name)?), Some(lua.create_string(value)?))),
                None => {
                    iterating.set(false);
                    Ok((None, None))
                }
            })
        });
    }
}
