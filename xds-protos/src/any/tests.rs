use super::*;
use crate::envoy::config::core::v3::{Locality, Node};

#[test]
fn a_packed_message_comes_back() {
    let locality = Locality {
        zone: "z1".into(),
        ..Default::default()
    };
    let any = pack(&locality);
    assert_eq!(any.type_url, "type.googleapis.com/envoy.config.core.v3.Locality");
    assert_eq!(decode::<Locality>(&any).unwrap(), locality);
}

#[test]
fn the_host_of_a_type_url_does_not_matter() {
    let mut any = pack(&Locality::default());
    any.type_url = "example.com/a/envoy.config.core.v3.Locality".into();
    assert!(is::<Locality>(&any));
}

#[test]
fn another_type_and_broken_bytes_are_refused_by_name() {
    let any = pack(&Locality::default());
    let error = decode::<Node>(&any).unwrap_err().to_string();
    assert!(
        error.contains("envoy.config.core.v3.Locality") && error.contains("envoy.config.core.v3.Node"),
        "{error}"
    );

    let broken = Any {
        type_url: crate::type_url::<Node>(),
        value: vec![0x0a, 0xff],
    };
    assert!(matches!(decode::<Node>(&broken), Err(AnyError::Decode { .. })));
}

/// A TypedStruct of the older spelling, as Istio writes it.
fn typed_struct(type_url: &str, yaml: &str) -> Any {
    let value = load::typed(yaml, load::Syntax::Yaml, &LoadOptions::default()).unwrap();
    pack(&UdpaTypedStruct {
        type_url: type_url.into(),
        value: Some(value),
    })
}

#[test]
fn a_typed_struct_is_unpacked_as_what_it_describes() {
    let any = typed_struct(
        "type.googleapis.com/envoy.config.core.v3.Locality",
        "{zone: z1, subZone: s}",
    );
    let locality = unpack::<Locality>(&any).unwrap();
    assert_eq!((locality.zone.as_str(), locality.sub_zone.as_str()), ("z1", "s"));
    assert_eq!(inner_type_name(&any).unwrap(), "envoy.config.core.v3.Locality");
    assert_eq!(
        unpack::<Locality>(&pack(&locality)).unwrap(),
        locality,
        "what is packed plainly is unpacked too"
    );

    let resolved = resolve(&any).unwrap();
    assert_eq!(resolved.get_field_by_name("zone").unwrap().as_str(), Some("z1"));
}

#[test]
fn numbers_in_a_typed_struct_fit_integer_fields() {
    use crate::envoy::extensions::bootstrap::internal_listener::v3::InternalListener;
    let any = typed_struct(&crate::type_url::<InternalListener>(), "{buffer_size_kb: 64}");
    assert_eq!(
        unpack::<InternalListener>(&any)
            .unwrap()
            .buffer_size_kb
            .map(|size| size.value),
        Some(64)
    );
}

#[test]
fn a_typed_struct_is_checked() {
    let locality = "type.googleapis.com/envoy.config.core.v3.Locality";
    let error = unpack::<Locality>(&typed_struct(locality, "{zoen: z1}")).unwrap_err();
    assert!(
        matches!(&error, AnyError::Struct { source, .. } if source.errors[0].path == "zoen"),
        "{error}"
    );
    assert!(matches!(
        unpack::<Locality>(&typed_struct(locality, "{zone: 1}")),
        Err(AnyError::Struct { .. })
    ));
    assert!(matches!(
        unpack::<Node>(&typed_struct(locality, "{}")),
        Err(AnyError::WrongType { .. })
    ));
    assert!(matches!(
        resolve(&typed_struct("a.com/foo.Bar", "{}")),
        Err(AnyError::UnknownType(_))
    ));
}
