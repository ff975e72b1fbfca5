use super::{
    config::Users,
    filter::{Refused, authenticate},
};

const USERS: &str = "# comment\nuser1:{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=\n\n";

#[test]
fn a_known_user_with_the_right_password() {
    let users = Users::parse(USERS).unwrap();
    let check = |value: &str| authenticate(Some(value.as_bytes()), &users);
    assert_eq!(check("Basic dXNlcjE6dGVzdDE="), Ok("user1".to_owned()));
    assert_eq!(check("Basic dXNlcjE6d3Jvbmc="), Err(Refused::Credential));
    assert_eq!(check("Bearer x"), Err(Refused::Scheme));
    assert_eq!(check("Basic dXNlcjE="), Err(Refused::Format));
    assert_eq!(authenticate(None, &users), Err(Refused::NoCredential));
}

#[test]
fn what_is_no_htpasswd_of_sha_is_refused() {
    for bad in [
        "user1",
        ":{SHA}tESsBmE/yNY3lb6a0L6vVQEZNqw=",
        "user1:$apr1$x",
        "user1:{SHA}short",
        &format!("{USERS}\n{USERS}"),
    ] {
        assert!(Users::parse(bad).is_err(), "{bad}");
    }
}
