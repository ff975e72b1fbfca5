use http::HeaderValue;

use super::*;

const ASKED: Asked = Asked::UNKNOWN;

fn written(
    status: u16,
    headers: &[(&'static str, &'static str)],
    asked: Asked,
    end: bool,
    close: Option<bool>,
) -> (String, Framing) {
    let mut response = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    response.set_static(header::DATE, "now");
    for (name, value) in headers {
        response
            .headers
            .append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let mut out = Vec::new();
    let (framing, _) = head(&mut out, &response, asked, end, close, HeaderCase::Lower);
    (String::from_utf8(out).unwrap().replace("date: now\r\n", ""), framing)
}

#[test]
fn the_end_of_a_body_is_told_as_envoy_tells_it() {
    let head_request = Asked { head: true, ..ASKED };
    let http_10 = Asked { http_10: true, ..ASKED };
    let connect = Asked { connect: true, ..ASKED };
    let length = &[("content-length", "5")];
    for (status, headers, asked, end, lines, framing) in [
        (
            200,
            &length[..],
            ASKED,
            false,
            "content-length: 5\r\n",
            Framing::Length(5),
        ),
        (
            200,
            &[],
            ASKED,
            false,
            "transfer-encoding: chunked\r\n",
            Framing::Chunked,
        ),
        (200, &[], ASKED, true, "content-length: 0\r\n", Framing::Length(0)),
        (204, &[], ASKED, true, "", Framing::Bodiless),
        (
            304,
            &length[..],
            ASKED,
            true,
            "content-length: 5\r\n",
            Framing::Bodiless,
        ),
        (
            200,
            &length[..],
            head_request,
            true,
            "content-length: 5\r\n",
            Framing::Bodiless,
        ),
        (
            200,
            &[],
            head_request,
            true,
            "transfer-encoding: chunked\r\n",
            Framing::Bodiless,
        ),
        (204, &[], head_request, true, "", Framing::Bodiless),
        (200, &[], connect, false, "", Framing::UntilClose),
        (403, &[], connect, true, "content-length: 0\r\n", Framing::Length(0)),
        (200, &[], http_10, false, "", Framing::UntilClose),
    ] {
        let (text, as_framed) = written(status, headers, asked, end, None);
        let (_, text) = text.split_once("\r\n").unwrap();
        assert_eq!(
            (text, as_framed),
            (&*format!("{lines}\r\n"), framing),
            "{status} {asked:?} {end}"
        );
    }
}

#[test]
fn closes_are_announced() {
    let http_10 = Asked { http_10: true, ..ASKED };
    let fields = |asked, close| written(200, &[("content-length", "0")], asked, true, close).0;
    assert_eq!(
        fields(ASKED, Some(false)),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        fields(ASKED, Some(true)),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        fields(http_10, Some(false)),
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
    );
    // Without a length the end of the connection is the end of the body.
    assert!(
        written(200, &[], http_10, false, Some(false))
            .0
            .contains("connection: close")
    );
    assert!(
        !written(101, &[("connection", "upgrade")], ASKED, true, None)
            .0
            .contains("close")
    );
}

#[test]
fn names_in_proper_case() {
    let name = HeaderName::from_static("x-mixed_case-2nd");
    let mut out = Vec::new();
    field(&mut out, &name, b"V", Case::of(None, HeaderCase::ProperWords));
    assert_eq!(out, b"X-Mixed_Case-2nd: V\r\n");
}

#[test]
fn names_as_they_were_spelled() {
    let write = |spelling: &Spelling, name: &'static str| {
        let mut out = Vec::new();
        let case = Case::of(Some(spelling), HeaderCase::ProperWords);
        field(&mut out, &HeaderName::from_static(name), b"V", case);
        String::from_utf8(out).unwrap()
    };
    let mut spelling = Spelling::new(false);
    spelling.add("X-oWn".into());
    assert_eq!(write(&spelling, "x-own"), "X-oWn: V\r\n");
    assert_eq!(write(&spelling, "x-other"), "x-other: V\r\n");
    spelling.proper_others = true;
    assert_eq!(write(&spelling, "x-other"), "X-Other: V\r\n");
}

#[test]
fn chunk_sizes() {
    for n in [1usize, 15, 16, 255, 4096, 1 << 20] {
        let mut out = Vec::new();
        chunk_size(&mut out, n);
        assert_eq!(out, format!("{n:x}\r\n").into_bytes());
    }
}

#[test]
fn dates_are_dates() {
    let mut first = Vec::new();
    date::with(|date| first.extend_from_slice(date));
    assert!(httpdate::parse_http_date(std::str::from_utf8(&first).unwrap()).is_ok());
}
