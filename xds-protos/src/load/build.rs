//! Node tree to message: which field a key means, and the shapes protobuf's JSON reader lets a value have.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use super::error::{LoadError, Problem, most_similar};
use super::node::{Key, Mark, Node, NodeKind};
use super::{scalar, wkt};

/// Errors past this are not worth reading; the first ones are usually the cause.
const MAX_ERRORS: usize = 50;

/// A message with what was wrong on the way to it.
pub(super) struct Built {
    pub message: DynamicMessage,
    pub errors: Vec<LoadError>,
    pub unknown_fields: Vec<LoadError>,
}

/// Builds the message that `root` describes.
pub(super) fn build(descriptor: &MessageDescriptor, root: &Node) -> Built {
    let mut builder = Builder {
        path: Vec::new(),
        errors: Vec::new(),
        unknown_fields: Vec::new(),
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    builder.fill(&mut message, root);
    Built {
        message,
        errors: builder.errors,
        unknown_fields: builder.unknown_fields,
    }
}

/// One step of the way from the root to a value.
enum Segment<'n> {
    Field(&'n str),
    Index(usize),
    Key(&'n str),
}

pub(super) struct Builder<'n> {
    path: Vec<Segment<'n>>,
    errors: Vec<LoadError>,
    unknown_fields: Vec<LoadError>,
}

impl<'n> Builder<'n> {
    /// Reads `node` into `message`, in the form its type has in JSON.
    pub fn fill(&mut self, message: &mut DynamicMessage, node: &'n Node) {
        if !wkt::fill(self, message, node) {
            self.fields(message, node);
        }
    }

    /// Reads the fields of an ordinary message.
    pub fn fields(&mut self, message: &mut DynamicMessage, node: &'n Node) {
        let NodeKind::Map(entries) = &node.kind else {
            let expected = format!("a map of the fields of {}", message.descriptor().full_name());
            return self.wrong_type(node, expected);
        };
        let descriptor = message.descriptor();
        for (key, value) in entries {
            self.field(message, &descriptor, key, value);
        }
    }

    /// Reads one field by its protobuf or its JSON name.
    pub fn field(
        &mut self,
        message: &mut DynamicMessage,
        descriptor: &MessageDescriptor,
        key: &'n Key,
        value: &'n Node,
    ) {
        self.path.push(Segment::Field(&key.name));
        let field = descriptor.get_field_by_name(&key.name);
        match field.or_else(|| descriptor.get_field_by_json_name(&key.name)) {
            Some(field) => self.known_field(message, &field, key, value),
            None => {
                let fields: Vec<_> = descriptor.fields().collect();
                let similar = most_similar(&key.name, fields.iter().map(FieldDescriptor::name));
                let message = descriptor.full_name().to_owned();
                self.unknown(
                    key.at,
                    Problem::UnknownField {
                        message,
                        field: key.name.clone(),
                        similar,
                    },
                );
            }
        }
        self.path.pop();
    }

    fn known_field(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, key: &Key, value: &'n Node) {
        let null = matches!(value.kind, NodeKind::Null);
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic() && !null)
            && oneof.fields().any(|member| message.has_field(&member))
        {
            return self.error(key.at, Problem::AlreadySet(key.name.clone()));
        }
        if field.is_map() {
            self.map(message, field, value);
        } else if field.is_list() {
            let mut items = Vec::new();
            // Protobuf's reader takes one value for a list of one.
            if let NodeKind::List(nodes) = &value.kind {
                self.list(&field.kind(), nodes, &mut items);
            } else if !null {
                items.extend(self.value(&field.kind(), value));
            }
            if let (Some(list), false) = (message.get_field_mut(field).as_list_mut(), items.is_empty()) {
                list.append(&mut items);
            }
        } else if null {
            if let Some(value) = wkt::null_of(&field.kind()) {
                message.set_field(field, value);
            }
        } else if let Kind::Message(_) = field.kind() {
            // A message that occurs twice is merged.
            if let Value::Message(inner) = message.get_field_mut(field) {
                self.fill(inner, value);
            }
        } else if let Some(value) = self.value(&field.kind(), value) {
            message.set_field(field, value);
        }
    }

    /// Reads list items: null makes an empty one, a list in the list is flattened.
    pub fn list(&mut self, kind: &Kind, nodes: &'n [Node], items: &mut Vec<Value>) {
        for (index, node) in nodes.iter().enumerate() {
            self.path.push(Segment::Index(index));
            match &node.kind {
                NodeKind::Null => items.push(wkt::null_of(kind).unwrap_or_else(|| Value::default_value(kind))),
                NodeKind::List(inner) if !wkt::is_list_like(kind) => self.list(kind, inner, items),
                _ => items.extend(self.value(kind, node)),
            }
            self.path.pop();
        }
    }

    /// Reads a map field.
    pub fn map(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, node: &'n Node) {
        let entries = match &node.kind {
            NodeKind::Null => return,
            NodeKind::Map(entries) => entries,
            _ => return self.wrong_type(node, "a map".into()),
        };
        let Kind::Message(entry) = field.kind() else { return };
        let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        for (key, node) in entries {
            if !seen.insert(&key.name) {
                self.error(key.at, Problem::RepeatedKey(key.name.clone()));
                continue;
            }
            self.path.push(Segment::Key(&key.name));
            let map_key = self.map_key(&key_kind, key);
            let value = match node.kind {
                NodeKind::Null => Some(wkt::null_of(&value_kind).unwrap_or_else(|| Value::default_value(&value_kind))),
                _ => self.value(&value_kind, node),
            };
            if let (Some(map_key), Some(value), Some(map)) = (map_key, value, message.get_field_mut(field).as_map_mut())
            {
                map.insert(map_key, value);
            }
            self.path.pop();
        }
    }

    fn map_key(&mut self, kind: &Kind, key: &Key) -> Option<MapKey> {
        let result = scalar::map_key(kind, &key.name);
        result.map_err(|problem| self.error(key.at, problem)).ok()
    }

    /// Reads one value of a kind; `None` after an error, or for an enum value that is unknown.
    fn value(&mut self, kind: &Kind, node: &'n Node) -> Option<Value> {
        if let Kind::Message(descriptor) = kind {
            let mut message = DynamicMessage::new(descriptor.clone());
            self.fill(&mut message, node);
            return Some(Value::Message(message));
        }
        match scalar::value(kind, node) {
            Ok(value) => Some(value),
            Err(problem) if problem.is_unknown_field() => {
                self.unknown(node.at, problem);
                None
            }
            Err(problem) => {
                self.error(node.at, problem);
                None
            }
        }
    }

    pub fn wrong_type(&mut self, node: &Node, expected: String) {
        self.error(
            node.at,
            Problem::WrongType {
                expected,
                found: node.describe(),
            },
        );
    }

    pub fn error(&mut self, at: Mark, problem: Problem) {
        if self.errors.len() < MAX_ERRORS {
            let error = self.place(at, problem);
            self.errors.push(error);
        }
    }

    fn unknown(&mut self, at: Mark, problem: Problem) {
        if self.unknown_fields.len() < MAX_ERRORS {
            let error = self.place(at, problem);
            self.unknown_fields.push(error);
        }
    }

    fn place(&self, at: Mark, problem: Problem) -> LoadError {
        let mut path = String::new();
        for segment in &self.path {
            match segment {
                Segment::Field(name) if path.is_empty() => path.push_str(name),
                Segment::Field(name) => path.extend([".", name]),
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
                Segment::Key(key) => path.push_str(&format!("[{key:?}]")),
            }
        }
        LoadError {
            line: at.line,
            column: at.column,
            path,
            problem,
        }
    }
}
