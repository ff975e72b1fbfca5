use super::*;

fn check(key: bool) -> RedisCheck {
    RedisCheck {
        request: Vec::new(),
        asks_for_key: key,
        stats: None,
    }
}

#[test]
fn commands_are_arrays_of_strings() {
    assert_eq!(command(&["EXISTS", "a b"]), b"*2\r\n$6\r\nEXISTS\r\n$3\r\na b\r\n");
}

#[test]
fn an_answer_is_judged_by_its_first_line() {
    let well = Verdict::Healthy { degraded: false };
    assert_eq!(check(false).judge(b"+PONG"), well);
    assert_eq!(check(true).judge(b":0"), well);
    for (key, line) in [
        (false, "+PING"),
        (false, ":0"),
        (false, "-ERR"),
        (false, "HTTP/1.1 400 Bad Request"),
        (true, ":1"),
        (true, "+PONG"),
    ] {
        assert_eq!(check(key).judge(line.as_bytes()), Verdict::failed(Active), "{line}");
    }
}
