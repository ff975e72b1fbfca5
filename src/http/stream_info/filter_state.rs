//! Filter state: named objects that filters leave for one another (`envoy.type` FilterState).

use std::{any::Any, borrow::Cow, fmt, net::IpAddr, rc::Rc, sync::Arc};

use xds_protos::google::protobuf::Struct;

/// Whether an object goes along to the upstream connection, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Stays on this stream.
    #[default]
    None,
    /// To the next internal connection, no further.
    Once,
    /// To every internal connection behind.
    Transitive,
}

/// An object in filter state.
pub trait FilterStateObject: fmt::Debug {
    /// As `%FILTER_STATE(name:PLAIN)%` prints it; none when it has no text form.
    fn as_text(&self) -> Option<Cow<'_, str>>;
    /// A named part of it, as `%FILTER_STATE(name:FIELD:part)%` prints it.
    fn field(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// As `%FILTER_STATE(name:TYPED)%` prints it, where that is more than its quoted text.
    fn as_json(&self) -> Option<String> {
        None
    }
    /// As a message of fields, for expressions that name a part of it.
    fn as_struct(&self) -> Option<Struct> {
        None
    }
    /// As expressions see the whole of it, where that is not its text.
    fn as_bytes(&self) -> Option<Vec<u8>> {
        None
    }
    /// The hash that makes it part of an upstream pool's key; none for objects that are not hashable.
    fn hash(&self) -> Option<u64> {
        None
    }
    /// The address, of an object that is one; a text that reads like one is none.
    fn ip(&self) -> Option<IpAddr> {
        None
    }
    /// For the filter that knows the object's type.
    fn as_any(&self) -> &dyn Any;
}

/// A plain string (`envoy.string`); hashable when made by a hashable factory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringObject(pub Arc<str>);

impl FilterStateObject for StringObject {
    fn as_text(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug, Clone)]
struct Entry {
    name: Arc<str>,
    object: Rc<dyn FilterStateObject>,
    sharing: Sharing,
    read_only: bool,
}

/// Named objects of one life span. Few at a time, so a list is the fastest map.
#[derive(Debug, Clone, Default)]
pub struct FilterState(Vec<Entry>);

impl FilterState {
    /// The object of this name.
    pub fn get(&self, name: &str) -> Option<&dyn FilterStateObject> {
        self.0.iter().find(|e| &*e.name == name).map(|e| &*e.object)
    }

    /// Sets an object; false when one of that name is there and read-only.
    pub fn set(
        &mut self,
        name: Arc<str>,
        object: Rc<dyn FilterStateObject>,
        sharing: Sharing,
        read_only: bool,
    ) -> bool {
        let entry = Entry {
            name,
            object,
            sharing,
            read_only,
        };
        match self.0.iter_mut().find(|e| e.name == entry.name) {
            Some(e) if e.read_only => false,
            Some(e) => {
                *e = entry;
                true
            }
            None => {
                self.0.push(entry);
                true
            }
        }
    }
}

/// The objects that go along to an upstream connection. Two of these are equal when their hashable objects are: others
/// do not keep requests on connections of their own, and the first request of a connection decides on them.
#[derive(Debug, Clone, Default)]
pub struct SharedObjects(Vec<Entry>);

impl SharedObjects {
    /// Those of a stream and of its connection, the stream's first; none in the usual case.
    pub fn of(stream: &FilterState, connection: &FilterState) -> Option<Rc<Self>> {
        let mut all: Vec<Entry> = Vec::new();
        for entry in stream.0.iter().chain(&connection.0) {
            if entry.sharing != Sharing::None && all.iter().all(|e| e.name != entry.name) {
                all.push(entry.clone());
            }
        }
        (!all.is_empty()).then(|| Rc::new(Self(all)))
    }

    /// As filter state of the connection they have gone to: what was shared once goes no further.
    pub fn to_filter_state(&self) -> FilterState {
        let arrived = self.0.iter().cloned().map(|mut entry| {
            if entry.sharing == Sharing::Once {
                entry.sharing = Sharing::None;
            }
            entry
        });
        FilterState(arrived.collect())
    }

    /// Name, hash and text of those that keep requests apart. The text as well: two principals whose hashes are equal
    /// by chance must not meet on a connection.
    fn identities(&self) -> impl Iterator<Item = (&str, u64, Option<Cow<'_, str>>)> {
        let identity = |e| {
            let Entry { name, object, .. }: &Entry = e;
            Some((&**name, object.hash()?, object.as_text()))
        };
        self.0.iter().filter_map(identity)
    }

    /// Whether any of them keeps requests apart.
    pub fn has_identity(&self) -> bool {
        self.identities().next().is_some()
    }
}

impl PartialEq for SharedObjects {
    fn eq(&self, other: &Self) -> bool {
        self.identities().eq(other.identities())
    }
}

impl Eq for SharedObjects {}
