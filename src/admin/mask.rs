//! Field masks of `/config_dump`: which fields of a message are shown.

use std::collections::BTreeMap;

use xds_protos::{
    dynamic,
    google::protobuf::Any,
    prost::Message,
    prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value},
};

/// Paths of fields by their first name; a path that ends here has nothing below it and means the whole field.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mask(BTreeMap<String, Mask>);

impl Mask {
    /// Reads `a,b.c`.
    pub(super) fn parse(text: &str) -> Self {
        let mut mask = Self::default();
        for path in text.split(',').filter(|path| !path.is_empty()) {
            let mut at = &mut mask;
            for name in path.split('.') {
                at = at.0.entry(name.to_owned()).or_default();
            }
        }
        mask
    }

    /// Clears every other field. False, and nothing done, if the message has not all of these fields.
    pub(super) fn trim(&self, message: &mut DynamicMessage) -> bool {
        let fits = self.fits(message);
        if fits {
            self.clear_others(message);
        }
        fits
    }

    /// The same for an element of a repeated field, whose packed messages the mask may reach into.
    pub(super) fn trim_resource(&self, message: &mut DynamicMessage) -> bool {
        let mut outer = Self::default();
        for (name, below) in &self.0 {
            let field = message.descriptor().get_field_by_name(name);
            let Some(field) = field.filter(|f| is_any(f) && !below.0.is_empty()) else {
                outer.0.insert(name.clone(), below.copied());
                continue;
            };
            outer.0.insert(name.clone(), Self::default());
            if !message.has_field(&field) {
                continue;
            }
            let packed_in = match &*message.get_field(&field) {
                Value::Message(any) => any.transcode_to::<Any>().ok(),
                _ => None,
            };
            let Some(mut inner) = packed_in.and_then(|any| dynamic::from_any(&any).ok()) else {
                return false;
            };
            if !below.trim(&mut inner) {
                return false;
            }
            if let Ok(any) = dynamic::from_typed(&packed(&inner)) {
                message.set_field(&field, Value::Message(any));
            }
        }
        outer.trim(message)
    }

    // Only the last field of a path may be repeated.
    fn fits(&self, message: &DynamicMessage) -> bool {
        fn fits(mask: &Mask, descriptor: &xds_protos::prost_reflect::MessageDescriptor) -> bool {
            mask.0.iter().all(|(name, below)| {
                let Some(field) = descriptor.get_field_by_name(name) else {
                    return false;
                };
                below.0.is_empty()
                    || match field.kind() {
                        Kind::Message(inner) => !field.is_list() && !field.is_map() && fits(below, &inner),
                        _ => false,
                    }
            })
        }
        fits(self, &message.descriptor())
    }

    fn clear_others(&self, message: &mut DynamicMessage) {
        for field in message.descriptor().fields() {
            match self.0.get(field.name()) {
                None => message.clear_field(&field),
                Some(below) if below.0.is_empty() || !message.has_field(&field) => {}
                Some(below) => {
                    if let Value::Message(inner) = message.get_field_mut(&field) {
                        below.clear_others(inner);
                    }
                }
            }
        }
    }

    fn copied(&self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(name, below)| (name.clone(), below.copied()))
                .collect(),
        )
    }
}

fn is_any(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(m) if m.full_name() == "google.protobuf.Any") && !field.is_list()
}

/// A message of any type in an `Any`.
pub(super) fn packed(message: &DynamicMessage) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", message.descriptor().full_name()),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use xds_protos::envoy::{
        admin::v3::{ListenersConfigDump, listeners_config_dump::StaticListener},
        config::listener::v3::Listener,
    };

    use super::*;

    fn listener() -> Listener {
        Listener {
            name: "l".into(),
            stat_prefix: "s".into(),
            ..Listener::default()
        }
    }

    #[test]
    fn fields_that_are_not_named_are_cleared() {
        let mut message = dynamic::from_typed(&listener()).unwrap();
        assert!(Mask::parse("name").trim(&mut message));
        let left: Listener = dynamic::to_typed(&message).unwrap();
        assert_eq!((left.name.as_str(), left.stat_prefix.as_str()), ("l", ""));
        assert!(!Mask::parse("name,nosuch").trim(&mut message));
        assert!(!Mask::parse("name.x").trim(&mut message));
    }

    #[test]
    fn paths_stop_at_lists_and_reach_into_packed_messages() {
        let element = StaticListener {
            listener: Some(xds_protos::any::pack(&listener())),
            ..StaticListener::default()
        };
        let mut dump = dynamic::from_typed(&ListenersConfigDump {
            static_listeners: vec![element.clone()],
            ..ListenersConfigDump::default()
        })
        .unwrap();
        assert!(!Mask::parse("static_listeners.listener").trim(&mut dump));
        let mut element = dynamic::from_typed(&element).unwrap();
        assert!(Mask::parse("listener.stat_prefix").trim_resource(&mut element));
        let left: StaticListener = dynamic::to_typed(&element).unwrap();
        let left: Listener = xds_protos::any::unpack(&left.listener.unwrap()).unwrap();
        assert_eq!((left.name.as_str(), left.stat_prefix.as_str()), ("", "s"));
    }
}
