//! The home page: what is going on, and the way to everything else.

use std::sync::atomic::Ordering;

use super::{AdminRequest, Reply, endpoints::TABLE};

const STYLE: &str = "
:root{--ink:#1c2430;--soft:#667085;--line:#e4e7ec;--card:#fff;--page:#f6f7f9;--accent:#3451b2;--good:#067647}
@media (prefers-color-scheme:dark){:root{--ink:#e7ebf3;--soft:#98a2b3;--line:#2a3140;--card:#171c26;--page:#0f131a;--accent:#8da4ef;--good:#47cd89}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:68rem;margin:0 auto;padding:2rem 1.25rem 4rem}h1{font-size:1.6rem;margin:0}h2{font-size:1.05rem;margin:2.2rem 0 .7rem}
header{display:flex;gap:1rem;align-items:baseline;flex-wrap:wrap}header span{color:var(--soft)}
.state{color:var(--good);font-weight:600}.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin-top:1.4rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.card small{color:var(--soft)}table{width:100%;border-collapse:collapse;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden}
td,th{padding:.5rem .8rem;border-top:1px solid var(--line);text-align:left;vertical-align:top}tr:first-child td,tr:first-child th{border-top:0}
th{color:var(--soft);font-weight:500;font-size:.85rem}td.n{font-variant-numeric:tabular-nums;text-align:right}a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
code{font:13px ui-monospace,monospace}button{font:inherit;color:var(--accent);background:none;border:1px solid var(--line);border-radius:6px;padding:.1rem .6rem;cursor:pointer}form{margin:0}
";

/// `/`
pub(super) fn home(request: &AdminRequest) -> Reply {
    let server = &request.server;
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>nuncio</title><style>",
    );
    page.push_str(STYLE);
    page.push_str("</style></head><body><main>");
    page.push_str(&format!(
        "<header><h1>nuncio</h1><span class=\"state\">{}</span><span>{} · node <code>{}</code> · up {}</span></header>",
        server.state().name(),
        env!("CARGO_PKG_VERSION"),
        escape(if server.node.id.is_empty() {
            "-"
        } else {
            &server.node.id
        }),
        humantime::format_duration(std::time::Duration::from_secs(server.started.1.elapsed().as_secs())),
    ));
    let memory = crate::server::memory();
    let (active, warming) = server.clusters.snapshots();
    let listeners = server.listeners.active();
    let waiting = server.listeners.warming();
    page.push_str("<div class=\"cards\">");
    for (label, value) in [
        ("listeners", listeners.len().to_string()),
        ("clusters", active.len().to_string()),
        ("warming", (warming.len() + waiting.len()).to_string()),
        ("connections", server.connections.load(Ordering::Relaxed).to_string()),
        ("workers", server.concurrency.to_string()),
        ("memory", format!("{:.1} MB", memory.physical as f64 / 1e6)),
    ] {
        page.push_str(&format!(
            "<div class=\"card\"><b>{value}</b><small>{label}</small></div>"
        ));
    }
    page.push_str("</div><h2>Listeners</h2><table><tr><th>name</th><th>address</th><th>version</th></tr>");
    for listener in &listeners {
        let addresses: Vec<_> = listener.bound.iter().map(ToString::to_string).collect();
        page.push_str(&format!(
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
            escape(&listener.config.name),
            escape(&addresses.join(", ")),
            escape(if listener.is_static {
                "static"
            } else {
                &listener.version
            }),
        ));
    }
    for (listener, targets) in &waiting {
        page.push_str(&format!(
            "<tr><td>{}</td><td colspan=2>waits for {}</td></tr>",
            escape(&listener.config.name),
            escape(&targets.join(", "))
        ));
    }
    page.push_str(
        "</table><h2>Clusters</h2><table><tr><th>name</th><th>hosts</th><th>healthy</th><th>version</th></tr>",
    );
    for cluster in active.iter().take(200) {
        let sets = cluster.cluster.hosts.load();
        let healthy: usize = sets.priorities.iter().map(|p| p.healthy.len()).sum();
        page.push_str(&format!(
            "<tr><td>{}</td><td class=n>{}</td><td class=n>{healthy}</td><td>{}</td></tr>",
            escape(&cluster.cluster.info.name),
            sets.hosts().count(),
            escape(if cluster.is_static { "static" } else { &cluster.version }),
        ));
    }
    if active.len() > 200 {
        page.push_str(&format!(
            "<tr><td colspan=4>and {} more: <a href=\"clusters\">/clusters</a></td></tr>",
            active.len() - 200
        ));
    }
    page.push_str("</table><h2>Commands</h2><table>");
    for endpoint in TABLE {
        let path = endpoint.path.trim_start_matches('/');
        if path.is_empty() {
            continue;
        }
        let action = if endpoint.post {
            format!("<form method=\"post\" action=\"{path}\"><button>{path}</button></form>")
        } else {
            format!("<a href=\"{path}\">{path}</a>")
        };
        page.push_str(&format!("<tr><td>{action}</td><td>{}</td></tr>", escape(endpoint.help)));
    }
    page.push_str("</table></main></body></html>");
    Reply::html(page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
