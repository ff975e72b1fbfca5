//! `/clusters`: the hosts of every cluster, in text and JSON.

use super::{AdminRequest, Reply, config_dump::to_json};
use crate::upstream::admin;

/// `/clusters?format=json&filter=REGEX`
pub(super) fn clusters(request: &AdminRequest) -> Reply {
    let filter = request.param("filter").filter(|f| !f.is_empty());
    let Ok(filter) = filter.map(|f| regex::Regex::new(&f)).transpose() else {
        return Reply::error(http::StatusCode::BAD_REQUEST, "Invalid re2 regex");
    };
    let keep = |name: &str| filter.as_ref().is_none_or(|f| f.is_match(name));
    if request.param("format").as_deref() == Some("json") {
        let mut all = admin::clusters(&request.server);
        all.cluster_statuses.retain(|c| keep(&c.name));
        return Reply::json(to_json(&all) + "\n");
    }
    let text = admin::text(&request.server);
    if filter.is_none() {
        return Reply::text(text);
    }
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| keep(line.split("::").next().unwrap_or_default()))
        .collect();
    Reply::text(kept)
}
