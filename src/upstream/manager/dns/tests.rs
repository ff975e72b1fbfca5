use super::*;

fn addresses(text: &[&str]) -> Vec<SocketAddr> {
    text.iter().map(|t| t.parse().unwrap()).collect()
}

#[test]
fn families() {
    let both = addresses(&["1.1.1.1:1", "[::1]:1", "1.1.1.1:1"]);
    let only = |family| of_family(both.clone(), family);
    assert_eq!(only(DnsFamily::All), addresses(&["1.1.1.1:1", "[::1]:1"]));
    assert_eq!(only(DnsFamily::Auto), addresses(&["[::1]:1"]));
    assert_eq!(only(DnsFamily::V4Only), addresses(&["1.1.1.1:1"]));
    assert_eq!(only(DnsFamily::V4Preferred), addresses(&["1.1.1.1:1"]));
    let six = of_family(addresses(&["[::1]:1"]), DnsFamily::V4Preferred);
    assert_eq!(six, addresses(&["[::1]:1"]));
    assert!(of_family(addresses(&["[::1]:1"]), DnsFamily::V4Only).is_empty());
}

#[test]
fn a_logical_host_stays_while_it_is_among_the_answers() {
    let known = addresses(&["1.1.1.1:1"]);
    assert_eq!(logical(&known, addresses(&["2.2.2.2:1", "1.1.1.1:1"])), known);
    assert_eq!(logical(&known, addresses(&["2.2.2.2:1"])), addresses(&["2.2.2.2:1"]));
    assert_eq!(logical(&known, Vec::new()), known);
}
