//! The API as its clients meet it, on real sockets, with a made-up watcher.

mod hostile;

use tokio::io::AsyncWriteExt as _;

use super::{
    fake::{Fake, Served, json_of, read_until, status_of},
    *,
};
use crate::event::fixture::event_at;

#[tokio::test]
async fn containers_come_and_go() {
    let served = Served::start(Fake::default()).await;
    let web = r#"{"cgroup":"/sys/fs/cgroup/web"}"#;
    let added = served.ask("PUT", "/v1/containers/web-1", web).await;
    assert_eq!(status_of(&added), 201, "{added}");
    let again = served.ask("PUT", "/v1/containers/web-1", web).await;
    assert_eq!(status_of(&again), 409, "{again}");
    assert!(again.contains("application/problem+json"), "{again}");
    assert!(
        json_of(&again)["detail"]
            .as_str()
            .unwrap()
            .contains("web-1")
    );

    // Paths are ids too, with --all-cgroups.
    let added = served.ask("PUT", "/v1/containers/%2Fa%2Fb%20c", web).await;
    assert_eq!(status_of(&added), 201, "{added}");
    let list = json_of(&served.ask("GET", "/v1/containers", "").await);
    assert_eq!(list["containers"][0]["id"], "/a/b c");
    assert_eq!(list["containers"][1]["id"], "web-1");
    let status = json_of(&served.ask("GET", "/v1/status", "").await);
    assert_eq!(
        (&status["containers"], &status["tier"]),
        (&2.into(), &"btf".into())
    );

    let removed = served.ask("DELETE", "/v1/containers/web-1", "").await;
    assert_eq!(status_of(&removed), 204, "{removed}");
    let removed = served.ask("DELETE", "/v1/containers/web-1", "").await;
    assert_eq!(status_of(&removed), 404, "{removed}");
    let bad = r#"{"cgroup":"/nowhere/\u0000/é\n"}"#;
    let refused = served.ask("PUT", "/v1/containers/web-2", bad).await;
    assert_eq!(status_of(&refused), 422, "{refused}");
    let detail = json_of(&refused)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("/nowhere/"), "{detail}");
    assert!(!detail.contains(char::is_control), "{detail:?}");
}

#[tokio::test]
async fn what_is_only_told_cannot_be_changed() {
    let served = Served::start(Fake::default()).await;
    for (method, path) in [
        ("PUT", "/v1/containers/web-1"),
        ("DELETE", "/v1/containers/web-1"),
        ("GET", "/v1/history"),
    ] {
        let answer = served.ask_listener(method, path, "localhost").await;
        assert_eq!(status_of(&answer), 404, "{answer}");
    }
    let answer = served.ask_listener("POST", "/v1/status", "localhost").await;
    assert_eq!(status_of(&answer), 405, "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    for path in [
        "/healthz",
        "/readyz",
        "/v1/status",
        "/v1/containers",
        "/v1/events",
        "/",
    ] {
        let answer = served.ask_listener("GET", path, "127.0.0.1").await;
        assert_eq!(status_of(&answer), 200, "{answer}");
    }
}

/// A page of another site whose name resolves to this machine.
#[tokio::test]
async fn another_hosts_name_is_refused() {
    let served = Served::start(Fake::default()).await;
    for path in ["/", "/v1/containers", "/metrics", "/healthz", "/nothing"] {
        let answer = served.ask_listener("GET", path, "evil.example").await;
        assert_eq!(status_of(&answer), 421, "{answer}");
        let line = format!(
            "GET http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let stream = tokio::net::TcpStream::connect(served.address)
            .await
            .unwrap();
        let answer = fake::exchange(stream, line.as_bytes()).await;
        assert_eq!(status_of(&answer), 421, "{answer}");
    }
}

#[tokio::test]
async fn metrics_are_whose_they_are() {
    let served = Served::start(Fake::default()).await;
    let answer = served.ask_listener("GET", "/metrics", "localhost").await;
    assert_eq!(status_of(&answer), 404, "{answer}");
    let with = |api: Api| api.metrics(|| Box::pin(async { "# EOF\n".to_owned() }));
    let served = Served::start_with(Fake::default(), with).await;
    let answer = served.ask_listener("GET", "/metrics", "localhost").await;
    assert!(answer.ends_with("\r\n\r\n# EOF\n"), "{answer}");
    assert!(answer.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"));
}

#[tokio::test]
async fn every_documented_operation_is_answered() {
    let document: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let served = Served::start(Fake::default()).await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if method == "parameters" || path.ends_with("/stream") {
                continue;
            }
            let method = method.to_uppercase();
            let both = [
                served.ask(&method, path, "").await,
                served.ask_listener(&method, path, "localhost").await,
            ];
            let served = both.iter().filter(|answer| {
                status_of(answer) != 405 && !answer.contains("there is nothing at")
            });
            assert!(served.count() > 0, "{method} {path}: {both:?}");
        }
    }
}

#[tokio::test]
async fn events_of_late_are_told() {
    let mut served = Served::start(Fake::default()).await;
    for second in 1..=5 {
        served.publish(event_at(second)).await;
    }
    let events = json_of(&served.ask("GET", "/v1/events?limit=2", "").await);
    let ids: Vec<_> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["id"])
        .collect();
    assert_eq!(ids, ["boot-4", "boot-5"]);
    for bad in ["?limit=x", "?limit=-1", "?limit=99999999999999999999"] {
        let answer = served.ask("GET", &format!("/v1/events{bad}"), "").await;
        assert_eq!(status_of(&answer), 400, "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[tokio::test]
async fn history_is_told_from_the_state_directory() {
    let served = Served::start(Fake::default()).await;
    let answer = served.ask("GET", "/v1/history", "").await;
    assert_eq!(status_of(&answer), 404, "{answer}");
    assert!(answer.contains("--state-dir"), "{answer}");

    let dir = tempfile::tempdir().unwrap();
    crate::store::fixture::write(dir.path(), (1..=3).map(event_at));
    let served = Served::start_with(Fake::default(), |api| api.state_dir(dir.path())).await;
    let found = json_of(
        &served
            .ask("GET", "/v1/history?since=1970-01-01T00:00:02Z", "")
            .await,
    );
    assert_eq!(found["truncated"], false);
    let ids: Vec<_> = found["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["id"])
        .collect();
    assert_eq!(ids, ["boot-2", "boot-3"]);
    assert_eq!(found["events"][0]["text"], event_at(2).to_text(false));
    let found = json_of(
        &served
            .ask("GET", "/v1/history?container=web-1&limit=5000", "")
            .await,
    );
    assert_eq!(found["events"], serde_json::json!([]));
    let answer = served.ask("GET", "/v1/history?since=yesterday", "").await;
    assert_eq!(status_of(&answer), 400, "{answer}");
}

const STREAM: &[u8] = b"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn a_stream_goes_on_after_what_was_read() {
    let mut served = Served::start(Fake::default()).await;
    for second in 1..=3 {
        served.publish(event_at(second)).await;
    }
    let mut stream = served.connect().await;
    stream.write_all(STREAM).await.unwrap();
    stream
        .write_all(b"Last-Event-ID: boot-1\r\n\r\n")
        .await
        .unwrap();
    let text = read_until(&mut stream, "id: boot-3").await;
    assert!(text.contains("text/event-stream"), "{text}");
    assert!(
        text.contains("id: boot-2") && !text.contains("id: boot-1"),
        "{text}"
    );
    served.publish(event_at(4)).await;
    let text = read_until(&mut stream, "id: boot-4").await;
    assert!(text.contains("event: oom"), "{text}");

    // Without an id a stream has only new events. After an unknown id it has all events and a gap.
    let mut new = served.connect().await;
    new.write_all(STREAM).await.unwrap();
    new.write_all(b"\r\n").await.unwrap();
    read_until(&mut new, "retry:").await;
    served.publish(event_at(5)).await;
    let text = read_until(&mut new, "id: boot-5").await;
    assert!(!text.contains("id: boot-4"), "{text}");
    let mut lost = served.connect().await;
    lost.write_all(STREAM).await.unwrap();
    lost.write_all(b"Last-Event-ID: other-1\r\n\r\n")
        .await
        .unwrap();
    let text = read_until(&mut lost, "id: boot-5").await;
    assert!(
        text.contains("event: gap\ndata: {\"missed\":null}"),
        "{text}"
    );
    assert!(text.contains("id: boot-1"), "{text}");

    // The watcher's end is the streams' end, after its last event.
    served.serving.stop();
    served.publish(event_at(6)).await;
    let Served {
        publisher, serving, ..
    } = served;
    drop(publisher);
    let text = read_until(&mut new, "never").await;
    assert!(text.contains("id: boot-6"), "{text}");
    serving.finish().await;
}

#[tokio::test]
async fn a_reader_that_stands_still_is_told_of_a_gap_and_delays_nobody() {
    let mut served = Served::start(Fake::default()).await;
    let mut still = served.connect().await;
    let mut quick = served.connect().await;
    for stream in [&mut still, &mut quick] {
        stream.write_all(STREAM).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        read_until(stream, "retry:").await;
    }
    // Far more than the socket and the kept events hold together.
    for second in 1..=8000 {
        served.publish(event_at(second)).await;
        if second % 200 == 0 {
            read_until(&mut quick, &format!("id: boot-{second}\n")).await;
        }
    }
    let text = read_until(&mut still, "id: boot-8000\n").await;
    let told = text.matches("event: oom").count();
    let missed: usize = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: {\"missed\":")?.strip_suffix('}'))
        .map(|number| number.parse::<usize>().unwrap())
        .sum();
    assert!(missed > 0, "{told} told");
    assert_eq!(told + missed, 8000);
}

#[tokio::test]
async fn streams_are_bounded_in_number() {
    let served = Served::start(Fake::default()).await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut stream = served.connect().await;
        stream.write_all(STREAM).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        read_until(&mut stream, "retry:").await;
        streams.push(stream);
    }
    let refused = served.ask("GET", "/v1/events/stream", "").await;
    assert_eq!(status_of(&refused), 503, "{refused}");
    let answer = served.ask("GET", "/v1/status", "").await;
    assert_eq!(status_of(&answer), 200, "others are served all the same");
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_that_it_is_still_there() {
    let served = Served::start(Fake::default()).await;
    let mut stream = served.connect().await;
    stream.write_all(STREAM).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    let text = read_until(&mut stream, "\n: still here\n").await;
    assert!(text.contains(": still here"), "{text}");
}

/// Paused time moves on as soon as all wait, so this takes none.
#[tokio::test(start_paused = true)]
async fn a_watcher_that_hangs_is_not_waited_for_without_end() {
    let hangs = Fake {
        hangs: true,
        ..Fake::default()
    };
    let served = Served::start(hangs).await;
    let answer = served.ask_listener("GET", "/healthz", "localhost").await;
    assert_eq!(status_of(&answer), 503, "{answer}");
    let answer = served.ask("GET", "/v1/status", "").await;
    assert_eq!(status_of(&answer), 408, "{answer}");
}

#[tokio::test]
async fn the_end_takes_the_socket_away_and_cuts_who_does_not_go() {
    let mut served = Served::start(Fake::default()).await;
    let mut idle = served.connect().await;
    let mut stream = served.connect().await;
    stream.write_all(STREAM).await.unwrap();
    stream.write_all(b"\r\n").await.unwrap();
    read_until(&mut stream, "retry:").await;
    served.serving.stop();
    assert_eq!(read_until(&mut idle, "never").await, "");
    let Served {
        dir,
        serving,
        publisher,
        ..
    } = served;
    // The watcher does not end: the stream is cut.
    serving.finish().await;
    read_until(&mut stream, "never").await;
    assert!(!dir.path().join("s").exists());
    drop(publisher);
}
