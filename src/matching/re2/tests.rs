use super::translate;

/// What RE2 of Envoy 1.40 says.
#[test]
fn what_re2_refuses_is_refused_in_its_words() {
    for (pattern, error) in [
        ("a**", "bad repetition operator: **"),
        ("a*?*", "bad repetition operator: *?*"),
        ("a{2}*", "bad repetition operator: {2}*"),
        ("a{2}{3}", "bad repetition operator: {2}{3}"),
        ("a{1001}", "invalid repetition size: {1001}"),
        ("(a{100}){100}", "invalid repetition size: {100}"),
        ("a{5,2}", "invalid repetition size: {5,2}"),
        ("[[:foo:]]", "invalid character class range: [:foo:]"),
        (r"\1", r"invalid escape sequence: \1"),
        (r"\8", r"invalid escape sequence: \8"),
        (r"\Z", r"invalid escape sequence: \Z"),
        (r"\e", r"invalid escape sequence: \e"),
        (r"\y", r"invalid escape sequence: \y"),
        (r"\x{100}", r"invalid escape sequence: \x{100"),
        ("(?=a)", "invalid perl operator: (?="),
        ("(?!a)", "invalid perl operator: (?!"),
        ("(?i", "invalid perl operator: (?i"),
        ("(?x)a", "invalid perl operator: (?x"),
        ("(?z)a", "invalid perl operator: (?z"),
        ("(?P=n)", "invalid perl operator: (?P"),
        ("(?P<n", "invalid named capture group: (?P<n"),
        ("a|*", "no argument for repetition operator: *"),
        ("(*)", "no argument for repetition operator: *"),
        ("\\", "trailing \\"),
        ("[a", "missing ]: [a"),
        ("a)", "unexpected ): a)"),
        ("a)|(b", "unexpected ): a)|(b"),
        ("a(b", "missing ): a(b"),
        ("[z-a]", "invalid character class range: z-a"),
        ("[a--b]", "invalid character class range: a--"),
        (r"\p{Foo}", r"invalid character class range: \p{Foo}"),
    ] {
        let refused = translate(pattern).map_err(|e| e.to_string());
        assert_eq!(refused, Err(error.to_owned()), "{pattern}");
    }
}

#[test]
fn what_re2_takes_means_the_same() {
    let matches = |pattern: &str, text: &[u8]| {
        let pattern = format!(r"\A(?:{})\z", translate(pattern).unwrap());
        let regex = regex::bytes::RegexBuilder::new(&pattern).unicode(false).build();
        regex.unwrap_or_else(|e| panic!("{pattern}: {e}")).is_match(text)
    };
    for (pattern, text, expected) in [
        ("a{,5}", &b"a{,5}"[..], true),
        ("x{2", b"x{2", true),
        ("a{01}", b"a{01}", true),
        (r"\p{Greek}+", b"a", false),
        (r"\pL+", b"ab\xe9", true),
        (r"\PL", b"1", true),
        (r"[\p{Lu}-]", b"-", true),
        ("[[:alpha:]]", b"a", true),
        ("[[:^alpha:]]", b"1", true),
        (r"\C\C", "é".as_bytes(), true),
        (".", "é".as_bytes(), false),
        ("é", "é".as_bytes(), true),
        ("[é]", b"\xc3", true),
        (r"\xff", b"\xff", true),
        (r"\x{7e}", b"~", true),
        (r"\101", b"A", true),
        ("(?P<n>a)(?P<n>b)", b"ab", true),
        ("(?<n>a)", b"a", true),
        (r"\Qa.b", b"a.b", true),
        (r"\Qa.b\E+", b"a.bb", true),
        ("a||b", b"", true),
        ("()", b"", true),
        (r"\a\f\v", b"\x07\x0c\x0b", true),
        (r"[\d-z]", b"-", true),
        (r"[^\D]", b"7", true),
        (r"[^\D]", b"x", false),
        ("[]a]", b"]", true),
        ("[^]a]", b"b", true),
        ("[a&&b]", b"&", true),
        ("[a~~b]", b"~", true),
        ("[[a]", b"[", true),
        (r"\s", b"\x0b", false),
        (r"\S", b"\x0b", true),
        (r"\W", b"`", true),
        (r"\W", b"_", false),
        ("[[:space:]]", b"\x0b", true),
        ("(?i)ab(?-i)C", b"ABC", true),
        ("(?i)ab(?-i)C", b"ABc", false),
        ("(?U)a+", b"aa", true),
        ("a.c", b"a\nc", false),
        ("(?s)a.c", b"a\nc", true),
        ("[^a]", b"\n", true),
        (r"\bfoo\b", b"foo", true),
        ("x*+", b"", false),
    ] {
        if pattern == "x*+" {
            assert!(translate(pattern).is_err());
            continue;
        }
        assert_eq!(matches(pattern, text), expected, "{pattern} on {text:?}");
    }
}
