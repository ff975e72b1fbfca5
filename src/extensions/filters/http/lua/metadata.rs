//! Metadata objects, and what their values are in Lua.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use mlua::{Lua, MetaMethod, MultiValue, UserData, UserDataMethods, Value as LuaValue};
use xds_protos::google::protobuf::{ListValue, Struct, Value, value::Kind};

use super::stream::Stream;

/// How deep a table may be.
const DEPTH: usize = 64;

/// No result, which is less than nil to a function that insists on an argument.
pub(super) fn nothing() -> MultiValue {
    MultiValue::new()
}

/// One result.
pub(super) fn one(value: LuaValue) -> MultiValue {
    MultiValue::from_iter([value])
}

/// A metadata value in Lua.
pub(super) fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => LuaValue::Nil,
        Some(Kind::BoolValue(b)) => LuaValue::Boolean(*b),
        Some(Kind::NumberValue(n)) => LuaValue::Number(*n),
        Some(Kind::StringValue(s)) => LuaValue::String(lua.create_string(s)?),
        Some(Kind::StructValue(s)) => LuaValue::Table(table(lua, s)?),
        Some(Kind::ListValue(list)) => {
            let table = lua.create_table()?;
            for (i, value) in list.values.iter().enumerate() {
                table.set(i + 1, to_lua(lua, value)?)?;
            }
            LuaValue::Table(table)
        }
    })
}

/// A struct as a table.
pub(super) fn table(lua: &Lua, of: &Struct) -> mlua::Result<mlua::Table> {
    let table = lua.create_table()?;
    for (key, value) in &of.fields {
        table.set(key.as_str(), to_lua(lua, value)?)?;
    }
    Ok(table)
}

/// A Lua value as metadata.
pub(super) fn from_lua(value: LuaValue, depth: usize) -> mlua::Result<Value> {
    if depth > DEPTH {
        return Err(mlua::Error::runtime("table is too deep"));
    }
    let kind = match value {
        LuaValue::Nil => Kind::NullValue(0),
        LuaValue::Boolean(b) => Kind::BoolValue(b),
        LuaValue::Integer(n) => Kind::NumberValue(n as f64),
        LuaValue::Number(n) => Kind::NumberValue(n),
        LuaValue::String(s) => Kind::StringValue(s.to_string_lossy()),
        LuaValue::Table(table) => match table.raw_len() {
            0 => {
                let mut fields = HashMap::new();
                for pair in table.pairs::<LuaValue, LuaValue>() {
                    let (key, value) = pair?;
                    let key = match key {
                        LuaValue::String(s) => s.to_string_lossy(),
                        LuaValue::Integer(n) => n.to_string(),
                        LuaValue::Number(n) => n.to_string(),
                        _ => return Err(mlua::Error::runtime("unexpected type of a table's key")),
                    };
                    fields.insert(key, from_lua(value, depth + 1)?);
                }
                Kind::StructValue(Struct { fields })
            }
            length => {
                let values = (1..=length).map(|i| from_lua(table.raw_get(i)?, depth + 1));
                Kind::ListValue(ListValue {
                    values: values.collect::<mlua::Result<_>>()?,
                })
            }
        },
        other => {
            let text = format!("unexpected type '{}' in dynamicMetadata", other.type_name());
            return Err(mlua::Error::runtime(text));
        }
    };
    Ok(Value { kind: Some(kind) })
}

/// A struct that can be read (`metadata()`, `filterContext()`).
pub(super) struct MetadataMap(pub Arc<Struct>);

impl UserData for MetadataMap {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, key: String| match this.0.fields.get(&key) {
            Some(value) => Ok(one(to_lua(lua, value)?)),
            None => Ok(nothing()),
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let of = this.0.clone();
            let mut keys: Vec<_> = of.fields.keys().cloned().collect();
            keys.sort_unstable();
            let mut keys = keys.into_iter();
            lua.create_function_mut(move |lua, _: mlua::MultiValue| {
                let Some((key, value)) = keys
                    .next()
                    .and_then(|k| Some((of.fields.get(&k)?, k)))
                    .map(|(v, k)| (k, v))
                else {
                    return Ok((None, LuaValue::Nil));
                };
                Ok((Some(key), to_lua(lua, value)?))
            })
        });
    }
}

/// `streamInfo():dynamicMetadata()`
pub(super) struct DynamicMetadata(pub Rc<Stream>);

impl UserData for DynamicMetadata {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, filter: String| {
            this.0.with(|loan| match loan.metadata.get(&filter) {
                Some(of) => Ok(one(LuaValue::Table(table(lua, of)?))),
                None => Ok(nothing()),
            })
        });
        methods.add_method("set", |_, this, (filter, key, value): (String, String, LuaValue)| {
            let value = from_lua(value, 0)?;
            if this.0.continued.get() {
                let late = (filter.clone(), key.clone(), value.clone());
                this.0.late.borrow_mut().push(late);
            }
            this.0.with(|loan| {
                loan.metadata.entry(filter).or_default().fields.insert(key, value);
                Ok(())
            })
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let all = this.0.with(|loan| {
                let each = loan.metadata.iter();
                each.map(|(name, s)| Ok((name.clone(), table(lua, s)?)))
                    .collect::<mlua::Result<Vec<_>>>()
            })?;
            let mut all = all.into_iter();
            lua.create_function_mut(move |_, _: mlua::MultiValue| Ok(all.next().unzip()))
        });
    }
}

/// `connectionStreamInfo():dynamicMetadata()`
pub(super) struct ConnectionMetadata(pub Rc<Stream>);

impl UserData for ConnectionMetadata {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, filter: String| {
            let metadata = this.0.facts.connection.metadata.borrow();
            match metadata.get(&filter) {
                Some(of) => Ok(one(LuaValue::Table(table(lua, of)?))),
                None => Ok(nothing()),
            }
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let metadata = this.0.facts.connection.metadata.borrow();
            let each = metadata.iter().map(|(name, s)| Ok((name.clone(), table(lua, s)?)));
            let mut all = each.collect::<mlua::Result<Vec<_>>>()?.into_iter();
            lua.create_function_mut(move |_, _: mlua::MultiValue| Ok(all.next().unzip()))
        });
    }
}
