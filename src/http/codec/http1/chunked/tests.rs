use bytes::{BufMut, BytesMut};
use proptest::{collection::vec, prelude::*};

use super::*;

fn options() -> H1Options {
    H1Options {
        max_header_bytes: 1024,
        max_headers: 10,
        ..H1Options::default()
    }
}

fn with_trailers() -> H1Options {
    H1Options {
        enable_trailers: true,
        ..options()
    }
}

/// What a body came to: its bytes, and its end, if it has one.
type Outcome = (Vec<u8>, Option<Result<Option<HeaderMap>, CodecError>>);

/// Decodes `parts` as they come, and returns what is left over, too.
fn decode(parts: &[&[u8]], options: &H1Options) -> (Outcome, Vec<u8>) {
    let mut decoder = Chunked::default();
    let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
    let mut end = None;
    for part in parts {
        buffer.put_slice(part);
        while end.is_none() {
            match decoder.decode(&mut buffer, options) {
                Ok(Step::Data(data)) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                    decoder.end_if_next(&mut buffer);
                }
                Ok(Step::Starved) => break,
                Ok(Step::End(trailers)) => end = Some(Ok(trailers)),
                Err(error) => end = Some(Err(error)),
            }
        }
    }
    ((body, end), buffer.to_vec())
}

fn whole(text: &[u8]) -> Outcome {
    decode(&[text], &options()).0
}

/// `text` cut at the given places.
fn cut<'a>(text: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|i| i.index(text.len() + 1)).collect();
    places.sort_unstable();
    let mut from = 0;
    let mut parts = Vec::new();
    for place in places.into_iter().chain([text.len()]) {
        parts.push(&text[from..place]);
        from = place;
    }
    parts
}

#[test]
fn legal_bodies() {
    for text in [
        "3\r\nabc\r\n0\r\n\r\n",
        "0003\r\nabc\r\n00\r\n\r\n",
        "3 \t\r\nabc\r\n0\r\n\r\n",
        "3;a=b;c=\"d;e\"\r\nabc\r\n0;x\r\n\r\n",
        "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nt: v\r\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
    ] {
        assert_eq!(whole(text.as_bytes()), (b"abc".to_vec(), Some(Ok(None))), "{text:?}");
    }
}

#[test]
fn what_another_reader_might_read_otherwise_is_refused() {
    for text in [
        "zz\r\n",
        "\r\nabc",
        " 3\r\nabc",
        "+3\r\nabc",
        "-3\r\nabc",
        "0x3\r\nabc",
        "3\nabc",
        "3\rabc",
        "3xyz\r\nabc",
        "3 xyz\r\nabc",
        "3;a\nb\r\nabc",
        "3;a\rb\r\nabc",
        "3;a\0\r\nabc",
        "ffffffffffffffff\r\nabc",
        "ffffffffffffffff3\r\nabc",
    ] {
        assert_eq!(
            whole(text.as_bytes()),
            (vec![], Some(Err(CodecError::Syntax))),
            "{text:?}"
        );
    }
    for text in ["3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "3\r\nabc\n0\r\n\r\n"] {
        assert_eq!(
            whole(text.as_bytes()),
            (b"abc".to_vec(), Some(Err(CodecError::Syntax))),
            "{text:?}"
        );
    }
}

#[test]
fn trailers_are_kept_only_when_enabled_and_checked_always() {
    let text = b"0\r\nA: 1\r\ncontent-length: 9\r\na: 2\r\n\r\nrest";
    let ((_, off), rest) = decode(&[text], &options());
    assert_eq!((off, &*rest), (Some(Ok(None)), &b"rest"[..]));
    let ((_, on), _) = decode(&[text], &with_trailers());
    let trailers = on.unwrap().unwrap().unwrap();
    assert_eq!(trailers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(trailers.len(), 2);
    for (bad, error) in [
        ("0\r\nno colon\r\n\r\n", CodecError::Syntax),
        ("0\r\na b: c\r\n\r\n", CodecError::Syntax),
        ("0\r\na : c\r\n\r\n", CodecError::Syntax),
        ("0\r\na: \x01\r\n\r\n", CodecError::InvalidCharacters),
    ] {
        assert_eq!(whole(bad.as_bytes()).1, Some(Err(error)), "{bad:?}");
    }
}

#[test]
fn trailers_have_limits() {
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(11));
    assert_eq!(
        decode(&[many.as_bytes()], &with_trailers()).0.1,
        Some(Err(CodecError::TooManyHeaders))
    );
    // An end that never comes is not waited for.
    let large = format!("0\r\na: {}", "x".repeat(1100));
    assert_eq!(whole(large.as_bytes()).1, Some(Err(CodecError::HeadersTooLarge)));
}

#[test]
fn lines_that_carry_nothing_have_a_limit() {
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000));
    assert_eq!(whole(long.as_bytes()).1, Some(Err(CodecError::Syntax)));
    let endless = format!("3;{}", "x".repeat(20_000));
    assert_eq!(whole(endless.as_bytes()).1, Some(Err(CodecError::Syntax)));
    let extended = format!("1;{}\r\na\r\n", "x".repeat(100)).repeat(300);
    assert_eq!(whole(extended.as_bytes()).1, Some(Err(CodecError::Syntax)));
    // Large chunks pay for signatures such as some clients put there.
    let signed = format!("400;sig={}\r\n{}\r\n", "f".repeat(64), "a".repeat(1024)).repeat(500);
    assert_eq!(whole(signed.as_bytes()).1, None);
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_arrives(
        chunks in vec((vec(any::<u8>(), 1..300), "(;[ -~]{0,20})?"), 0..8),
        places in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut text = Vec::new();
        let mut expected = Vec::new();
        for (data, extension) in &chunks {
            text.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
            text.extend_from_slice(data);
            text.extend_from_slice(b"\r\n");
            expected.extend_from_slice(data);
        }
        text.extend_from_slice(b"0\r\n\r\nGET /next");
        let (outcome, rest) = decode(&cut(&text, &places), &options());
        prop_assert_eq!(outcome, (expected, Some(Ok(None))));
        prop_assert!(b"GET /next".ends_with(&rest[..]));
    }

    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(
        pieces in vec(prop::sample::select(vec![
            "3", "0", "a", "\r\n", "\r\n", "\r", "\n", "abc", ";", " ", "\t", "t: v", "\x00", "ffffffff", "x",
        ]), 0..30),
        places in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let text = pieces.concat();
        let parts = cut(text.as_bytes(), &places);
        prop_assert_eq!(decode(&parts, &with_trailers()).0, decode(&[text.as_bytes()], &with_trailers()).0);
    }
}
