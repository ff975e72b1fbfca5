use std::cell::RefCell;

use super::*;

fn addresses(ports: &[u16]) -> Vec<Address> {
    ports
        .iter()
        .map(|port| Address::Ip(([127, 0, 0, 1], *port).into()))
        .collect()
}

fn refused(address: &Address) -> ConnectFailure {
    ConnectFailure::Remote {
        reason: address.to_string().into(),
    }
}

/// Port 1 refuses, port 2 never answers, any other connects.
async fn attempt(address: Address) -> Result<u16, ConnectFailure> {
    match address.port() {
        Some(1) => Err(refused(&address)),
        Some(2) => std::future::pending().await,
        port => Ok(port.unwrap_or_default()),
    }
}

#[tokio::test]
async fn a_failure_brings_the_next_address() {
    assert_eq!(race(addresses(&[1, 1, 80]), attempt).await, Ok(80));
}

#[tokio::test]
async fn silence_brings_the_next_address() {
    assert_eq!(race(addresses(&[2, 2, 80]), attempt).await, Ok(80));
}

#[tokio::test]
async fn the_first_address_may_still_win() {
    let slow = |address: Address| async move {
        match address.port() {
            Some(80) => tokio::time::sleep(2 * STAGGER).await,
            _ => return std::future::pending().await,
        }
        Ok(address)
    };
    let won = race(addresses(&[80, 2]), slow).await.unwrap();
    assert_eq!(won.port(), Some(80));
}

#[tokio::test]
async fn all_fail_with_the_last_failure() {
    let tried = RefCell::new(Vec::new());
    let noted = |address: Address| {
        tried.borrow_mut().push(address.port());
        attempt(Address::Ip(([127, 0, 0, 1], 1).into()))
    };
    let failure = race(addresses(&[5, 6]), noted).await.unwrap_err();
    assert_eq!(failure, refused(&addresses(&[1])[0]));
    assert_eq!(*tried.borrow(), [Some(5), Some(6)]);
}
