use super::*;

#[test]
fn dot_segments_and_escapes() {
    for (from, to) in [
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2E/b", "/b"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a\\b", "/a/b"),
        ("/%41%2f", "/A%2f"),
        ("//a//b", "//a//b"),
        ("/100%", "/100%"),
        ("/%zz%4", "/%zz%4"),
        ("/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
        ("/é", "/%C3%A9"),
    ] {
        assert_eq!(canonical(from, true).as_deref(), Some(to), "{from}");
    }
    assert_eq!(canonical("/a%00", true), None);
}

#[test]
fn parameters_of_dot_segments() {
    for (from, to) in [
        ("/a/..;/b", "/b"),
        ("/a/.;x/b", "/a/b"),
        ("/a/..;x\\b", "/"),
        ("/a\\..;x/b", "/a/..;x/b"),
        ("/a/%2e%2e;/b", "/a/..;/b"),
        ("/a/...;x/b", "/a/...;x/b"),
        ("/a;x/../b", "/b"),
    ] {
        assert_eq!(canonical(from, true).as_deref(), Some(to), "{from}");
    }
    assert_eq!(canonical("/a/..;/b", false).as_deref(), Some("/a/..;/b"));
}

#[test]
fn slashes() {
    for (from, to) in [
        ("/a//b///", "/a/b/"),
        ("//", "//"),
        ("///", "//"),
        ("//a", "/a"),
        ("/a", "/a"),
    ] {
        assert_eq!(merged(from.to_owned()), to, "{from}");
    }
    assert_eq!(unescape_slashes("/a%2Fb%5cc%2").as_deref(), Some("/a/b\\c%2"));
    assert_eq!(unescape_slashes("/a%252F%"), None);
}

#[test]
fn what_needs_nothing_is_left() {
    let options = PathOptions {
        normalize: true,
        merge_slashes: true,
        ..PathOptions::default()
    };
    assert!(options.is_settled("/a/b_c-d/"));
    for path in ["/a//b", "/a/.b", "/a%20", "/a?b", "/a;b", "/a#b"] {
        assert!(!options.is_settled(path), "{path}");
    }
    assert!(PathOptions::default().is_settled("/a/../b?c"));
    assert!(!PathOptions::default().is_settled("/a#b"));
}
