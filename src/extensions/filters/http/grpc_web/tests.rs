use http::{HeaderMap, HeaderValue};

use super::{
    text::{BadText, Decoder, Encoder},
    trailers::message,
};

const STREAM: &[u8] = &[0, 0, 0, 0, 2, 10, 0, 0, 0, 0, 0, 3, 10, 1, 2];
const TEXT: &str = "AAAAAAIKAA==AAAAAAMKAQI=";

#[test]
fn each_message_is_padded_by_itself() {
    assert_eq!(Encoder::default().encode(STREAM), TEXT);
    let mut bytewise = Encoder::default();
    let text: String = STREAM.iter().map(|b| bytewise.encode(&[*b])).collect();
    assert_eq!(text, TEXT);
}

#[test]
fn padding_may_stand_anywhere() {
    assert_eq!(Decoder::default().decode(TEXT.as_bytes()).unwrap(), STREAM);
    let mut bytewise = Decoder::default();
    let bytes: Vec<u8> = TEXT.bytes().flat_map(|b| bytewise.decode(&[b]).unwrap()).collect();
    assert_eq!(bytes, STREAM);
    bytewise.finish().unwrap();
}

#[test]
fn bad_text_is_told_from_short_text() {
    assert_eq!(Decoder::default().decode(b"!!!!"), Err(BadText::Data));
    let mut short = Decoder::default();
    assert_eq!(short.decode(b"AAA").unwrap(), b"");
    assert_eq!(short.finish(), Err(BadText::Size));
}

#[test]
fn trailers_are_a_message() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    assert_eq!(message(&trailers), b"\x80\0\0\0\x0fgrpc-status:0\r\n");
}
