use http::{HeaderMap, HeaderValue};

use super::answer::{Change, How};

fn change(how: How) -> Change {
    Change {
        name: "X-A".to_owned(),
        value: b"new".to_vec(),
        how,
    }
}

#[test]
fn headers_go_where_the_answer_wants_them() {
    let there = || HeaderMap::from_iter([("x-a".parse().unwrap(), HeaderValue::from_static("old"))]);
    for (how, empty, full) in [
        (How::Set, Some("new"), vec!["new"]),
        (How::Add, Some("new"), vec!["old", "new"]),
        (How::AppendToExisting, None, vec!["old,new"]),
        (How::IfAbsent, Some("new"), vec!["old"]),
        (How::IfPresent, None, vec!["new"]),
    ] {
        let mut headers = HeaderMap::new();
        assert!(change(how).apply(&mut headers));
        assert_eq!(headers.get("x-a").map(|v| v.to_str().unwrap()), empty, "{how:?}");
        let mut headers = there();
        change(how).apply(&mut headers);
        let all: Vec<_> = headers.get_all("x-a").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(all, full, "{how:?}");
    }
}

#[test]
fn what_is_no_header_is_told() {
    let bad = Change {
        value: b"a\nb".to_vec(),
        ..change(How::Set)
    };
    assert!(!bad.apply(&mut HeaderMap::new()));
}
