//! `/logging`: the levels of the process log.

use http::StatusCode;

use super::{AdminRequest, Reply, reply::parameters};
use crate::server::log;

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off 
";

/// At most one parameter; one without a value, or none, only asks.
pub(super) fn logging(request: &AdminRequest) -> Reply {
    match change(&parameters(&request.query)) {
        Ok(()) => Reply::text(active()),
        Err(why) => Reply::error(StatusCode::BAD_REQUEST, format!("error: {why}\n\n{USAGE}{}", active())),
    }
}

fn change(parameters: &[(String, String)]) -> Result<(), String> {
    let (name, value) = match parameters {
        [] => return Ok(()),
        [one] => one,
        _ => return Err("invalid number of parameters".to_owned()),
    };
    let done = match (name.as_str(), value.as_str()) {
        (_, "") => Ok(()),
        ("level", level) => log::set_all(level),
        ("paths", pairs) => log::set_pairs(pairs),
        ("group", _) => return Err("group parameter requires fine-grain logging to be enabled".to_owned()),
        (logger, level) => log::set(logger, level),
    };
    done.map_err(|e| e.to_string())
}

fn active() -> String {
    let mut out = String::from("active loggers:\n");
    for (logger, level) in log::levels() {
        out.push_str(&format!("  {logger}: {level}\n"));
    }
    out.push('\n');
    out
}
