use super::accept::{Candidate, Decision, choose};

const GZIP: Candidate = Candidate {
    token: "gzip",
    choose_first: false,
};
const BR: Candidate = Candidate {
    token: "br",
    choose_first: false,
};

#[test]
fn the_highest_weight_wins() {
    let both = [GZIP, BR];
    assert_eq!(choose("gzip;q=0.5, br;q=0.9", &both), Decision::Encoding("br"));
    assert_eq!(choose("gzip, br", &both), Decision::Encoding("gzip"));
    assert_eq!(choose("br, gzip", &both), Decision::Encoding("br"));
    let first = Candidate {
        choose_first: true,
        ..GZIP
    };
    assert_eq!(choose("br, gzip", &[first, BR]), Decision::Encoding("gzip"));
}

#[test]
fn what_is_not_wanted_is_not_used() {
    for accept in ["", "deflate", "gzip;q=0", "*;q=0", "gzip;q=x", "GZIP"] {
        assert_eq!(choose(accept, &[GZIP]), Decision::NotValid, "{accept}");
    }
    assert_eq!(choose("gzip", &[]), Decision::NotValid);
    assert_eq!(choose("identity, gzip;q=0.5", &[GZIP]), Decision::Identity);
}

#[test]
fn anything_is_the_first_that_is_left() {
    assert_eq!(choose("*", &[GZIP, BR]), Decision::Wildcard("gzip"));
    assert_eq!(choose("gzip;q=0, *", &[GZIP, BR]), Decision::Wildcard("br"));
}
