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
