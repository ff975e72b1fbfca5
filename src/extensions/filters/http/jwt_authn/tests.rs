use super::{audience::Audiences, jwks::Jwks, status::Status, token::Token};

const HS256: &str =
    r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"1","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}"#;
/// `{"iss":"me","sub":"bob","aud":"a1","exp":4102444800,"nested":{"x":[1,"two"]}}`, signed with the key above.
const GOOD: &str = "eyJhbGciOiAiSFMyNTYiLCAia2lkIjogIjEiLCAidHlwIjogIkpXVCJ9.eyJpc3MiOiAibWUiLCAic3ViIjogImJvYiIsICJhdWQiOiAiYTEiLCAiZXhwIjogNDEwMjQ0NDgwMCwgIm5lc3RlZCI6IHsieCI6IFsxLCAidHdvIl19fQ.KMW02wHk2dGxh3YNIWAy_oSfAVqBgjVdafQn_dGepTk";

#[test]
fn a_good_token_and_its_claims() {
    let token = Token::parse(GOOD).unwrap();
    assert_eq!((&*token.iss, &*token.sub, token.exp), ("me", "bob", 4_102_444_800));
    let keys = Jwks::parse(HS256.as_bytes()).unwrap();
    assert_eq!(keys.verify(&token), Ok(()));
    assert_eq!(token.check_time(4_102_444_860, 60), Ok(()));
    assert_eq!(token.check_time(4_102_444_861, 60), Err(Status::Expired));
    assert!(Audiences::new(vec!["https://a1/".to_owned()]).allow(&token.audiences));
    assert!(!Audiences::new(vec!["a2".to_owned()]).allow(&token.audiences));
}

#[test]
fn a_token_that_was_changed() {
    let keys = Jwks::parse(HS256.as_bytes()).unwrap();
    let (signed, _) = GOOD.rsplit_once('.').unwrap();
    let forged = Token::parse(&format!("{signed}.AAAA")).unwrap();
    assert_eq!(keys.verify(&forged), Err(Status::VerificationFail));
    // "none" is no algorithm, and a key of one kind is not tried for another.
    let none = "eyJhbGciOiJub25lIn0.e30.AAAA";
    assert_eq!(Token::parse(none).unwrap_err(), Status::HeaderUnknownAlg);
    let rs256 = Token::parse("eyJhbGciOiJSUzI1NiJ9.e30.AAAA").unwrap();
    assert_eq!(keys.verify(&rs256), Err(Status::NoMatchingKey));
}

#[test]
fn what_cannot_be_read() {
    for (text, status) in [
        ("", Status::BadFormat),
        ("a.b", Status::BadFormat),
        ("a..c", Status::BadFormat),
        ("a.b.c.d", Status::BadFormat),
        ("!.e30.AAAA", Status::HeaderBadBase64),
        ("AAAA.e30.AAAA", Status::HeaderBadJson),
        ("e30.e30.AAAA", Status::HeaderBadAlg),
        ("eyJhbGciOiJIUzI1NiJ9.!.AAAA", Status::PayloadBadBase64),
        ("eyJhbGciOiJIUzI1NiJ9.AAAA.AAAA", Status::PayloadBadJson),
        ("eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOjF9.AAAA", Status::IssNotString),
        ("eyJhbGciOiJIUzI1NiJ9.eyJleHAiOi0xfQ.AAAA", Status::ExpOutOfRange),
        // {"iss":"me","iss":"you"}
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJtZSIsImlzcyI6InlvdSJ9.AAAA",
            Status::PayloadBadJson,
        ),
        ("eyJhbGciOiJIUzI1NiJ9.e30.!", Status::SignatureBadBase64),
    ] {
        assert_eq!(Token::parse(text).unwrap_err(), status, "{text}");
    }
}

#[test]
fn key_sets_keep_what_can_be_used() {
    for bad in [
        "",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct"}]}"#,
        r#"{"keys":[{"kty":"RSA","alg":"ES256"}]}"#,
    ] {
        assert!(Jwks::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let mixed = r#"{"keys":[{"kty":"what"},{"kty":"oct","k":"AAAA"}]}"#;
    assert!(Jwks::parse(mixed.as_bytes()).is_ok());
}
