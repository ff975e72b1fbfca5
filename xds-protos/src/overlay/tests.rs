use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// A value of the kind that is not its default; messages are filled as far down as `depth`.
fn some_value(kind: &Kind, depth: u32) -> Value {
    match kind {
        Kind::Double => Value::F64(1.5),
        Kind::Int32 => Value::I32(-3),
        Kind::Int64 => Value::I64(-4),
        Kind::Uint32 => Value::U32(5),
        Kind::Uint64 => Value::U64(6),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String("s".into()),
        Kind::Bytes => Value::Bytes(vec![1, 2].into()),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(message) => Value::Message(filled(message, depth)),
        other => panic!("{other:?} is not used by the overlay"),
    }
}

/// A message with every field set; of a oneof the last member wins.
fn filled(descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields().filter(|_| depth > 0) {
        set(&mut message, &field, depth - 1);
    }
    message
}

fn set(message: &mut DynamicMessage, field: &FieldDescriptor, depth: u32) {
    let value = if field.is_map() {
        let entry = field.kind().as_message().unwrap().clone();
        let value = some_value(&entry.map_entry_value_field().kind(), depth);
        let key = match entry.map_entry_key_field().kind() {
            Kind::Int64 => MapKey::I64(7),
            _ => MapKey::String("k".into()),
        };
        Value::Map([(key, value)].into())
    } else if field.is_list() {
        Value::List(vec![some_value(&field.kind(), depth)])
    } else {
        some_value(&field.kind(), depth)
    };
    message.set_field(field, value);
}

/// The Rust type and the descriptor agree: nothing of a full message is lost on the way through the Rust type.
fn agrees<T: Message + Name + Default>() {
    let descriptor = crate::message(&T::full_name()).unwrap_or_else(|| panic!("{} has no descriptor", T::full_name()));
    assert_eq!(T::type_url(), crate::type_url::<T>());
    for field in descriptor.fields() {
        let mut message = DynamicMessage::new(descriptor.clone());
        set(&mut message, &field, 2);
        let typed = T::decode(message.encode_to_vec().as_slice()).unwrap();
        let back = DynamicMessage::decode(descriptor.clone(), typed.encode_to_vec().as_slice()).unwrap();
        assert_eq!(back, message, "{}", field.full_name());
    }
}

#[test]
fn rust_types_and_descriptors_agree() {
    agrees::<super::envoy::tcp::metadataexchange::config::MetadataExchange>();
    agrees::<super::envoy::extensions::network_filters::peer_metadata::Config>();
    agrees::<super::envoy::extensions::network_filters::peer_metadata::UpstreamConfig>();
    agrees::<super::io::istio::http::peer_metadata::Config>();
    agrees::<super::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig>();
    agrees::<super::istio::workload::BootstrapExtension>();
    agrees::<super::istio::workload::Workload>();
    agrees::<super::stats::MetricConfig>();
    agrees::<super::stats::MetricDefinition>();
    agrees::<super::stats::PluginConfig>();
    agrees::<super::udpa::r#type::v1::TypedStruct>();
    agrees::<super::xds::core::v3::Resource>();
    agrees::<super::xds::core::v3::ResourceName>();
    agrees::<super::xds::data::orca::v3::OrcaLoadReport>();
    agrees::<super::xds::service::orca::v3::OrcaLoadReportRequest>();
    agrees::<super::xds::r#type::v3::TypedStruct>();
    agrees::<super::xds::r#type::v3::Int64Range>();
    agrees::<super::xds::r#type::v3::Int32Range>();
    agrees::<super::xds::r#type::v3::DoubleRange>();
    agrees::<super::xds::r#type::matcher::v3::CelMatcher>();
    agrees::<super::xds::r#type::matcher::v3::HttpAttributesCelMatchInput>();
    agrees::<super::xds::r#type::matcher::v3::IpMatcher>();
    agrees::<super::xds::r#type::matcher::v3::ServerNameMatcher>();
    agrees::<super::xds::r#type::matcher::v3::Int64RangeMatcher>();
    agrees::<super::xds::r#type::matcher::v3::Int32RangeMatcher>();
    agrees::<super::xds::r#type::matcher::v3::DoubleRangeMatcher>();
}

#[test]
fn the_rules_of_the_overlay_are_read() {
    let matcher = DynamicMessage::new(crate::message("xds.type.matcher.v3.CelMatcher").unwrap());
    let violation = crate::pgv::validate(&matcher).unwrap_err();
    assert_eq!(
        violation.reason,
        "CelMatcherValidationError.ExprMatch: value is required"
    );
}

#[test]
fn fields_of_envoy_1_40_are_added_to_messages_that_lack_them() {
    use crate::load::{LoadOptions, Syntax, from_str};
    let load = |message: &str, text: &str| {
        let loaded = from_str(text, Syntax::Yaml, message, &LoadOptions::default()).unwrap();
        crate::print::json(
            &loaded.message,
            crate::print::PrintOptions {
                pretty: false,
                ..Default::default()
            },
        )
    };
    let tag = load(
        "envoy.type.tracing.v3.CustomTag",
        "{tag: t, literal: {value: '1'}, value_type: INT}",
    );
    assert_eq!(
        tag,
        "{\"tag\":\"t\",\"literal\":{\"value\":\"1\"},\"value_type\":\"INT\"}"
    );
    let check = load(
        "envoy.config.core.v3.HealthCheck",
        "{name: hc, http_health_check: {use_alpn_protocol: true}}",
    );
    assert_eq!(
        check,
        "{\"http_health_check\":{\"use_alpn_protocol\":true},\"name\":\"hc\"}"
    );
    let mutations = "{formatters: [{name: f}]}";
    load("envoy.extensions.filters.http.header_mutation.v3.Mutations", mutations);
    load(
        "envoy.extensions.filters.http.oauth2.v3.OAuth2Config",
        "{token_cookie_chunking: {max_chunks: 3}}",
    );

    let realm = "{users: {inline_string: u}, realm: \"a\\nb\"}";
    let auth = from_str(
        realm,
        Syntax::Yaml,
        "envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
        &LoadOptions::default(),
    );
    assert_eq!(crate::pgv::validate(&auth.unwrap().message).unwrap_err().path, "realm");
}
