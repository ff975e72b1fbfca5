use http::HeaderValue;

use super::{b3::*, *};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(n, v): &(&'static str, &str)| (http::HeaderName::from_static(n), HeaderValue::from_str(v).unwrap());
    pairs.iter().map(pair).collect()
}

fn known(incoming: Incoming) -> (Context, bool) {
    match incoming {
        Incoming::Known { context, sampled } => (context, sampled),
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_forms_of_b3_come_back_as_they_came() {
    for text in [
        "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-05e3ac9a4f6e3b90",
        "0af7651916cd43dd-b7ad6b7169203331-0",
    ] {
        let (context, sampled) = known(extract(&headers(&[("b3", text)])));
        assert!(sampled, "{text}");
        let mut out = HeaderMap::new();
        inject(&context, &mut out);
        assert_eq!(out["b3"], text);
    }
    let given = headers(&[
        ("x-b3-traceid", "0af7651916cd43dd"),
        ("x-b3-spanid", "b7ad6b7169203331"),
        ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
        ("x-b3-sampled", "1"),
    ]);
    let mut out = HeaderMap::new();
    inject(&known(extract(&given)).0, &mut out);
    assert_eq!(out, given);
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_not_there() {
    let none = |sampled, single_header| Incoming::None { sampled, single_header };
    assert_eq!(extract(&headers(&[])), none(None, false));
    assert_eq!(extract(&headers(&[("x-b3-sampled", "0")])), none(Some(false), false));
    assert_eq!(extract(&headers(&[("b3", "d")])), none(Some(true), true));
    for bad in [
        "x",
        "0af7651916cd43dd-b7ad6b7169203331-05e3ac9a4f6e3b90",
        "0af7651916cd43dz-b7ad6b7169203331",
        "0af7651916cd43dd-b7ad6b7169203331-z",
    ] {
        assert_eq!(extract(&headers(&[("b3", bad)])), Incoming::Malformed, "{bad}");
    }
    let bad = [("x-b3-traceid", "zzz"), ("x-b3-spanid", "b7ad6b7169203331")];
    assert_eq!(extract(&headers(&bad)), Incoming::Malformed);
}
