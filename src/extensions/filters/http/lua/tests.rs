use super::config::Script;

fn load(source: &str) -> Result<Script, String> {
    Script::load(source.to_owned(), String::new())
}

#[test]
fn a_script_tells_which_functions_it_has() {
    let script = load("function envoy_on_request(h) end").unwrap();
    assert!(script.on_request && !script.on_response);
    let script = load("function envoy_on_response(h) end").unwrap();
    assert!(!script.on_request && script.on_response);
}

#[test]
fn what_cannot_be_compiled_is_refused_in_envoys_words() {
    let error = load("bad code").map(|_| ()).unwrap_err();
    assert!(error.starts_with("script load error: "), "{error}");
    assert!(error.contains("[string \"bad code\"]:1:"), "{error}");
}

#[test]
fn a_loop_without_end_is_stopped() {
    for endless in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "coroutine.wrap(function() while true do end end)()",
    ] {
        let error = load(endless).map(|_| ()).unwrap_err();
        assert!(error.contains("too long"), "{endless}: {error}");
    }
}

#[test]
fn memory_is_limited() {
    let error = load("local t = {} for i = 1, 1e9 do t[i] = string.rep('x', 1e6) .. i end").map(|_| ());
    let error = error.unwrap_err();
    assert!(error.contains("memory") || error.contains("too long"), "{error}");
}

#[test]
fn pairs_asks_the_object_as_in_lua_5_2() {
    let source = "
        local t = setmetatable({}, {__pairs = function() return function(_, k) if not k then return 1, 2 end end end})
        local seen = 0
        for k, v in pairs(t) do seen = k + v end
        if seen ~= 3 then error('not asked') end";
    assert!(load(source).is_ok());
}

#[test]
fn native_code_is_out_of_reach() {
    assert!(load("require('ffi')").is_err());
    assert!(load("debug.getinfo(1)").is_err());
}
