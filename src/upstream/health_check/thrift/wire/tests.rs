use xds_protos::envoy::extensions::filters::network::thrift_proxy::v3::ProtocolType::Binary;

use super::*;

const ALL: [(TransportType, ProtocolType); 9] = [
    (Framed, Binary),
    (Framed, LaxBinary),
    (Framed, Compact),
    (Unframed, Binary),
    (Unframed, LaxBinary),
    (Unframed, Compact),
    (Header, Binary),
    (Header, LaxBinary),
    (Header, Compact),
];

/// The answer to a call: the call itself with another kind and another struct.
fn answer(wire: Wire, kind: u8, fields: &[u8]) -> Vec<u8> {
    let mut bytes = wire.call("ping");
    let start = match wire.transport {
        Unframed => 0,
        Framed => 4,
        _ => 18,
    };
    let at = match wire.protocol {
        Compact => 1,
        LaxBinary => 8,
        _ => 3,
    };
    bytes[start + at] = if wire.protocol == Compact { kind << 5 | 1 } else { kind };
    bytes.truncate(bytes.len() - 2);
    bytes.extend(fields);
    if start > 0 {
        let length = u32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
    }
    bytes
}

#[test]
fn every_transport_and_protocol_is_understood() {
    for (transport, protocol) in ALL {
        let wire = Wire { transport, protocol };
        let thrown: &[u8] = if protocol == Compact {
            &[0x1c, 0, 0]
        } else {
            &[12, 0, 1, 0, 0]
        };
        let returned: &[u8] = if protocol == Compact {
            &[0x01, 0, 0]
        } else {
            &[2, 0, 0, 1, 0]
        };
        assert_eq!(wire.outcome(&answer(wire, REPLY, &[0])), Outcome::Returned, "{wire:?}");
        assert_eq!(
            wire.outcome(&answer(wire, REPLY, returned)),
            Outcome::Returned,
            "{wire:?}"
        );
        assert_eq!(wire.outcome(&answer(wire, REPLY, thrown)), Outcome::Threw, "{wire:?}");
        assert_eq!(wire.outcome(&answer(wire, EXCEPTION, &[0])), Outcome::Threw, "{wire:?}");
        // A call is no answer.
        assert_eq!(wire.outcome(&wire.call("ping")), Outcome::Garbage, "{wire:?}");
        let whole = answer(wire, REPLY, thrown);
        assert_eq!(wire.outcome(&whole[..6]), Outcome::Unfinished, "{wire:?}");
    }
}

#[test]
fn what_is_no_thrift_is_garbage() {
    let wire = Wire {
        transport: Unframed,
        protocol: Binary,
    };
    assert_eq!(wire.outcome(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Outcome::Garbage);
}
