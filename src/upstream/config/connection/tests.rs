use super::*;

fn addresses(list: &[&str]) -> Vec<Address> {
    list.iter()
        .map(|text| Address::Ip(format!("{text}:80").parse().unwrap()))
        .collect()
}

fn sorted(first_is_ipv4: Option<bool>, first_count: usize, list: &[&str]) -> Vec<String> {
    let order = AddressOrder {
        first_is_ipv4,
        first_count,
    };
    let sorted = order.sort(addresses(list));
    sorted.iter().map(|a| a.ip().unwrap().to_string()).collect()
}

#[test]
fn families_take_turns_from_that_of_the_first_address() {
    let list = ["10.0.0.1", "10.0.0.2", "[::1]", "[::2]", "10.0.0.3"];
    assert_eq!(
        sorted(None, 1, &list),
        ["10.0.0.1", "::1", "10.0.0.2", "::2", "10.0.0.3"]
    );
    assert_eq!(
        sorted(None, 1, &["[::1]", "[::2]", "10.0.0.1"]),
        ["::1", "10.0.0.1", "::2"]
    );
}

#[test]
fn the_configured_family_comes_first_as_often_as_configured() {
    let list = ["10.0.0.1", "10.0.0.2", "[::1]", "[::2]", "[::3]"];
    assert_eq!(
        sorted(Some(false), 2, &list),
        ["::1", "::2", "10.0.0.1", "::3", "10.0.0.2"]
    );
    assert_eq!(
        sorted(Some(true), 9, &list),
        ["10.0.0.1", "10.0.0.2", "::1", "::2", "::3"]
    );
    assert_eq!(sorted(Some(true), 1, &["[::1]", "[::2]"]), ["::1", "::2"]);
}
