//! The buffer object: a body or a part of one.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use http::{HeaderValue, header};
use mlua::{UserData, UserDataMethods};

use super::stream::{Head, Stream};

/// Bytes that a script may read and replace.
pub(super) struct Buffer {
    stream: Rc<Stream>,
    bytes: Rc<RefCell<Bytes>>,
    epoch: u64,
}

impl Buffer {
    /// The whole body, for the run of this number. None for an empty one, unless `always`.
    pub fn whole(stream: &Rc<Stream>, always: bool, epoch: u64) -> Option<Self> {
        let mut body = stream.body.borrow_mut();
        if body.is_none() && always {
            *body = Some(Rc::default());
        }
        Some(Self {
            bytes: body.as_ref()?.clone(),
            epoch,
            stream: stream.clone(),
        })
    }

    /// A part that is on its way, for the run to come.
    pub fn part(stream: &Rc<Stream>, bytes: Rc<RefCell<Bytes>>) -> Self {
        Self {
            bytes,
            epoch: stream.epoch.get() + 1,
            stream: stream.clone(),
        }
    }
}

impl UserData for Buffer {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("length", |_, this, ()| {
            this.stream.check(this.epoch)?;
            Ok(this.bytes.borrow().len())
        });
        methods.add_method("getBytes", |lua, this, (index, length): (i64, i64)| {
            this.stream.check(this.epoch)?;
            let bytes = this.bytes.borrow();
            let range = usize::try_from(index)
                .ok()
                .zip(usize::try_from(length).ok())
                .and_then(|(index, length)| bytes.get(index..index.checked_add(length)?));
            match range {
                Some(range) => lua.create_string(range),
                None => Err(mlua::Error::runtime(
                    "index/length must be >= 0 and (index + length) must be <= buffer size",
                )),
            }
        });
        methods.add_method("setBytes", |_, this, text: mlua::String| {
            this.stream.check(this.epoch)?;
            let bytes = Bytes::copy_from_slice(&text.as_bytes());
            let length = bytes.len();
            *this.bytes.borrow_mut() = bytes;
            this.stream.with(|loan| {
                let headers = match &mut loan.head {
                    Head::Request(head) => &mut head.headers,
                    Head::Response(head) => &mut head.headers,
                };
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                Ok(())
            })?;
            Ok(length)
        });
    }
}
