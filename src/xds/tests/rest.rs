//! REST subscriptions.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Takes one request on a connection of its own: its head and body.
async fn take(listener: &TcpListener, answer: &str) -> (String, serde_json::Value) {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    let (head, body) = loop {
        connection.read_buf(&mut seen).await.unwrap();
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        if let Ok(body) = serde_json::from_str(body) {
            break (head.to_owned(), body);
        }
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    connection.write_all(answer.as_bytes()).await.unwrap();
    (head, body)
}

#[test]
fn clusters_are_polled_and_the_version_is_told() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = ads_proxy(listener.local_addr().unwrap(), "GRPC");
        // The aggregated stream of this proxy goes to the same port; it is no HTTP/1 and not of interest here.
        let (mut ads, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(async move {
            let mut all = Vec::new();
            let _ = ads.read_to_end(&mut all).await;
        });
        let source = source(
            "{ api_config_source: { api_type: REST, transport_api_version: V3, cluster_names: [plain], \
             refresh_delay: 0.01s, request_timeout: 5s } }",
        );
        let mut watched = watch(&proxy, &clusters(), &source, Names::Wildcard);
        let answer = format!(
            r#"{{"versionInfo": "1", "resources": [{{"@type": "{}", "name": "a"}}]}}"#,
            clusters()
        );
        let (head, body) = take(&listener, &answer).await;
        assert!(head.starts_with("POST /v3/discovery:clusters HTTP/1.1"), "{head}");
        assert_eq!(body["node"]["id"], "me");
        assert_eq!(body["type_url"], clusters());
        assert_eq!(watched.next().await, update("1", &[("a", "1")], &[]));

        let (_, body) = take(&listener, "no JSON").await;
        assert_eq!(body["version_info"], "1");
        assert!(matches!(watched.next().await, Told::Failed(FetchFailure::Rejected(_))));
        take(&listener, r#"{"version_info": "2"}"#).await;
        assert_eq!(watched.next().await, update("2", &[], &["a"]));
        assert_eq!(proxy.server.stats.counter_value("test.update_success"), Some(2));
    });
}
