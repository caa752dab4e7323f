//! Clients that mean no good, on raw sockets.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
};

use super::super::fake::{Fake, Served, exchange, status_of};

/// Any answer is neither a success nor a failure of ours, and others are still served.
async fn is_refused(served: &Served, bytes: &[u8]) -> u16 {
    let answer = exchange(served.connect().await, bytes).await;
    let status = status_of(&answer);
    assert!(
        answer.is_empty() || (400..500).contains(&status),
        "{answer}"
    );
    let fine = served.ask("GET", "/v1/status", "").await;
    assert_eq!(status_of(&fine), 200, "{fine}");
    status
}

#[tokio::test]
async fn garbage_is_refused() {
    let served = Served::start(Fake::default()).await;
    let garbage: Vec<u8> = (0..5000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for bytes in [
        &garbage[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        is_refused(&served, bytes).await;
    }
}

#[tokio::test]
async fn tricks_with_paths_lead_nowhere() {
    let served = Served::start(Fake::default()).await;
    for path in [
        "/v1/containers/..",
        "/v1/../v1/status",
        "/v1/containers/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/v1/containers/a%00b",
        "/v1/containers/%ff%fe",
        "/v1/containers/%",
        "/v1/containers/%0a",
        "/v1/containers/",
        "//",
    ] {
        for method in ["GET", "DELETE"] {
            let line =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let status = is_refused(&served, line.as_bytes()).await;
            assert!(status >= 400, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn bodies_are_checked_and_bounded() {
    let served = Served::start(Fake::default()).await;
    let put = |body: &str| {
        let length = body.len();
        format!(
            "PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("\u{feff}{}", 400),
        ("{\"cgroup\":\"\\ud800\"}", 400),
        ("{}", 422),
        ("[]", 422),
        ("{\"cgroup\":7}", 422),
        ("{\"cgroup\":\"relative\"}", 422),
    ] {
        assert_eq!(
            is_refused(&served, put(body).as_bytes()).await,
            status,
            "{body}"
        );
    }
    let deep = "[".repeat(60_000);
    assert!(is_refused(&served, put(&deep).as_bytes()).await >= 400);
    let large = put(&format!("{{\"cgroup\":\"{}\"}}", "x".repeat(64 << 10)));
    assert_eq!(is_refused(&served, large.as_bytes()).await, 413);
    // Also without a declared length.
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let endless = "PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless = format!("{endless}{}0\r\n\r\n", chunk.repeat(3));
    assert_eq!(is_refused(&served, endless.as_bytes()).await, 413);
}

#[tokio::test]
async fn headers_are_bounded_in_size_and_number() {
    let served = Served::start(Fake::default()).await;
    let long = format!(
        "GET /v1/status HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(20 << 10)
    );
    assert_eq!(is_refused(&served, long.as_bytes()).await, 431);
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
    assert_eq!(is_refused(&served, many.as_bytes()).await, 431);
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    assert!(is_refused(&served, line.as_bytes()).await >= 400);
}

/// Paused time moves on as soon as all wait, so this takes none.
#[tokio::test(start_paused = true)]
async fn slow_clients_are_not_waited_for_without_end() {
    let served = Served::start(Fake::default()).await;
    for begun in [
        "",
        "G",
        "GET /v1/status HTTP/1.1\r\nHost: loc",
        "PUT /v1/containers/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        // After an answer too.
        "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/st",
    ] {
        // It returns at all: the other side closes. The last one has one answer, to what it asked whole.
        let answer = exchange(served.connect().await, begun.as_bytes()).await;
        let whole = begun.matches("\r\n\r\n").count();
        assert!(
            answer.matches("HTTP/1.1 200").count() <= whole,
            "{begun:?}: {answer}"
        );
        assert!(!answer.contains("HTTP/1.1 201"), "{begun:?}: {answer}");
    }
}

/// 10,000 connections, some hundreds at a time: tasks are bounded by the connections that are allowed.
#[tokio::test]
async fn connections_are_bounded_in_number() {
    const AT_A_TIME: usize = 300;
    let served = Served::start(Fake::default()).await;
    let metrics = Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let mut refused = 0;
    for _ in 0..10_000_usize.div_ceil(AT_A_TIME) {
        let mut open = Vec::new();
        for _ in 0..AT_A_TIME {
            let mut stream = served.connect().await;
            let asked = stream
                .write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                .await;
            let mut first = [0; 64];
            match (asked, stream.read(&mut first).await) {
                (Ok(()), Ok(length)) if length > 0 => open.push(stream),
                _ => refused += 1,
            }
            assert!(metrics.num_alive_tasks() <= before + 256);
        }
        assert!(open.len() <= 256, "{}", open.len());
    }
    assert!(refused > 0);
    let fine = served.ask("GET", "/v1/status", "").await;
    assert!(fine.is_empty() || status_of(&fine) == 200, "{fine}");
}
