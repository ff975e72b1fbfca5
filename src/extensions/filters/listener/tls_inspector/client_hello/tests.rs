use super::*;

/// A ClientHello with these extensions.
fn message(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (kind, value) in extensions {
        all.extend(kind.to_be_bytes());
        all.extend((value.len() as u16).to_be_bytes());
        all.extend(*value);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((all.len() as u16).to_be_bytes());
    body.extend(all);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    message
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for part in message.chunks(size) {
        records.extend([22, 3, 1]);
        records.extend((part.len() as u16).to_be_bytes());
        records.extend(part);
    }
    records
}

const NAME: (u16, &[u8]) = (SERVER_NAME, b"\0\x09\0\0\x06a.Test");
const PROTOCOLS: (u16, &[u8]) = (ALPN, b"\0\x03\x02h2");

#[test]
fn names_and_protocols_are_read() {
    let bytes = records(&message(&[NAME, PROTOCOLS]), 1000);
    let Read::Hello(hello, consumed) = read(&bytes) else {
        panic!()
    };
    assert_eq!(hello.server_name().as_deref(), Some("a.Test"));
    assert_eq!(hello.protocols(), ["h2"]);
    assert_eq!(consumed, bytes.len());
}

#[test]
fn every_beginning_is_incomplete_however_it_is_cut() {
    for size in [1, 3, 7, 1000] {
        let mut bytes = records(&message(&[NAME]), size);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Read::Incomplete, "{end} of records of {size}");
        }
        let whole = bytes.len();
        bytes.extend(b"what follows");
        assert!(matches!(read(&bytes), Read::Hello(_, n) if n == whole));
    }
}

#[test]
fn what_is_none_is_told_as_soon_as_it_can_be() {
    assert_eq!(read(b"GET /"), Read::NotTls(5));
    assert_eq!(read(b"GET "), Read::Incomplete);
    assert_eq!(
        read(&[22, 3, 1, 0xff, 0xff]),
        Read::NotTls(5),
        "a record that is too long"
    );
    assert_eq!(read(&[21, 3, 1, 0, 2, 1, 0]), Read::NotTls(7), "an alert");
    assert_eq!(
        read(&[22, 3, 1, 0, 4, 1, 0, 0x40, 1]),
        Read::NotTls(9),
        "a message that is too long"
    );
    assert_eq!(
        read(&[22, 3, 1, 0, 0].repeat(33)),
        Read::NotTls(33 * 5),
        "only empty records"
    );
}

#[test]
fn broken_messages_are_none() {
    let not_tls = |message: &[u8]| matches!(read(&records(message, 1000)), Read::NotTls(_));
    assert!(not_tls(&message(&[NAME, NAME])), "twice the same extension");
    assert!(not_tls(&message(&[(SERVER_NAME, b"\0\x09\0\0\x06a.test+")])));
    let mut other = message(&[NAME]);
    other[0] = 2;
    assert!(not_tls(&other), "a ServerHello");
    let mut short = message(&[NAME]);
    short[3] -= 1;
    assert!(not_tls(&short));
}

#[test]
fn protocols_that_are_broken_are_none() {
    let bytes = records(&message(&[(ALPN, b"\0\x04\x02h2\0")]), 1000);
    let Read::Hello(hello, _) = read(&bytes) else { panic!() };
    assert!(hello.protocols().is_empty());
    assert!(hello.is_of_known_version());
}

#[test]
fn versions_that_there_are_not() {
    let mut old = message(&[NAME]);
    old[5] = 0;
    let Read::Hello(hello, _) = read(&records(&old, 1000)) else {
        panic!()
    };
    assert!(!hello.is_of_known_version());
}
