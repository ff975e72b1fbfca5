//! The header object: a head's headers, pseudo-headers included, or trailers.

use std::{cell::Cell, rc::Rc};

use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataMethods, Value};

use super::{
    metadata::nothing,
    stream::{Head, Stream},
};
use crate::extensions::filters::http::view::View;

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
            return Ok(f(View::trailers(trailers.get_or_insert_default())));
        }
        self.stream.with(|loan| {
            Ok(f(match &mut loan.head {
                Head::Request(head) => View::request(head),
                Head::Response(head) => View::response(head),
            }))
        })
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
            this.change(|mut view| view.add(&name, &value.as_bytes()))
        });
        methods.add_method("replace", |_, this, (name, value): (String, mlua::String)| {
            this.change(|mut view| view.set(&name, &value.as_bytes()))
        });
        methods.add_method("remove", |_, this, name: String| {
            this.change(|mut view| view.remove(&name))
        });
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
