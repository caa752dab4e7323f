use std::error::Error as _;

use serde_json::{Value, json};

use super::{
    event::{Changes, MAX_PENDING, Pending},
    fake::{Fake, Reply, whole},
    lines::{Line, MAX_LINE_BYTES, Split},
    *,
};

async fn asked(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Result<Value, SourceError> {
    let fake = Fake::new(move |_, _| reply());
    let client = Client::new(fake.socket());
    let mut elements = client.list("/containers/json").await?;
    let mut all = Vec::new();
    while let Some(piece) = elements.next::<Value>().await? {
        all.extend(piece.elements);
    }
    Ok(all.into())
}

fn cause(error: &SourceError) -> String {
    assert!(matches!(error, SourceError::Request { .. }), "{error:?}");
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn an_answer_is_json() {
    let answer = asked(|| Reply::Json(json!([1, null]))).await.unwrap();
    assert_eq!(answer, json!([1, null]));
}

#[tokio::test]
async fn a_daemon_that_is_down_cannot_be_connected_to() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("none"));
    let error = client.list("/").await.err().unwrap();
    assert!(matches!(error, SourceError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn a_refusal_says_why_printably_and_shortly() {
    let no = || Reply::Refused(500, "{\"cause\":\"x\",\"message\":\"no\\u001b[2J\"}");
    let error = asked(no).await.unwrap_err();
    assert_eq!(
        cause(&error),
        r"the answer is 500 Internal Server Error: no\x1b[2J"
    );
    let long = || Reply::Raw(whole(404, &"x".repeat(100_000)));
    let error = cause(&asked(long).await.unwrap_err());
    assert_eq!(
        error,
        format!("the answer is 404 Not Found: {}", "x".repeat(256))
    );
}

#[tokio::test]
async fn half_an_answer_is_an_error() {
    let whole = whole(200, "[1, 2, 3]");
    for length in [0, 10, 40, whole.len() - 2] {
        let half = whole.get(..length).unwrap().to_vec();
        let error = asked(move || Reply::Raw(half.clone())).await.unwrap_err();
        assert!(matches!(error, SourceError::Request { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn garbage_is_an_error_that_does_not_repeat_it() {
    for text in ["", "[1", "hello\u{1b}", "{\"a\":\u{0}}"] {
        let answer = whole(200, text);
        let error = asked(move || Reply::Raw(answer.clone())).await.unwrap_err();
        assert!(cause(&error).starts_with("the answer is no whole list"));
    }
    let error = asked(|| Reply::Raw(b"\x16\x03\x01 no HTTP\r\n\r\n".to_vec())).await;
    assert!(matches!(error, Err(SourceError::Request { .. })));
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let text = " ".repeat(MAX_ANSWER_BYTES + 1);
    let error = asked(move || Reply::Raw(whole(200, &text))).await;
    assert_eq!(cause(&error.unwrap_err()), "the answer is too long");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_hangs_is_given_up() {
    let error = asked(|| Reply::Hang).await.unwrap_err();
    assert!(matches!(error, SourceError::Hangs { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_hangs_is_given_up() {
    let fake = Fake::new(|_, _| Reply::Hang);
    let client = Client::new(fake.socket());
    let error = client.events("/events").await.err().unwrap();
    assert!(matches!(error, SourceError::Hangs { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_refused_is_not_found_and_what_breaks_is_an_error() {
    let fake = Fake::new(|path, _| match path {
        "/refused" => Reply::Refused(409, "{}"),
        "/garbage" => Reply::Raw(whole(200, "?")),
        _ => Reply::Raw(Vec::new()),
    });
    let client = Client::new(fake.socket());
    for path in ["/refused", "/garbage"] {
        assert_eq!(client.find::<Value>("it", path).await.unwrap(), None);
    }
    assert!(client.find::<Value>("it", "/broken").await.is_err());
}

#[tokio::test]
async fn a_stream_that_ends_is_closed() {
    let fake = Fake::new(|_, _| Reply::Raw(whole(200, "{\"a\":1}\n\n{\"b\":")));
    let events = Client::new(fake.socket()).events("/events").await;
    let mut lines = events.unwrap().lines;
    assert_eq!(lines.next().await.unwrap(), "{\"a\":1}\n");
    assert!(matches!(lines.next().await, Err(SourceError::Closed)));
}

#[test]
fn lines_come_whole_however_they_were_cut() {
    let text = b"{\"a\":1}\n\r\n{\"b\":2}\n";
    for size in 1..=text.len() {
        let mut split = Split::default();
        let mut lines = Vec::new();
        for piece in text.chunks(size) {
            split.push(piece);
            while let Some(line) = split.next() {
                lines.push(line);
            }
        }
        let line = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        assert_eq!(lines, [line("{\"a\":1}\n"), line("{\"b\":2}\n")]);
    }
}

#[test]
fn a_line_without_end_is_skipped_and_takes_no_memory() {
    for piece in [64 << 10, 3 * MAX_LINE_BYTES] {
        let mut split = Split::default();
        let mut lines = Vec::new();
        for _ in 0..(3 * MAX_LINE_BYTES / piece) {
            split.push(&vec![b'x'; piece]);
            lines.extend(split.next());
        }
        split.push(b"x\nnext\n");
        lines.extend(std::iter::from_fn(|| split.next()));
        assert_eq!(
            lines,
            [Line::TooLong, Line::Whole(Bytes::from_static(b"next\n"))]
        );
    }
}

fn told(name: &str) -> Told {
    Told {
        name: Some(name.to_owned()),
        ..Told::default()
    }
}

#[test]
fn a_container_waits_once_and_what_comes_last_holds() {
    let mut pending = Pending::default();
    let mut add = |id: &str, change, name| pending.add(id.to_owned(), change, told(name));
    add("a", Change::New, "old").unwrap();
    add("b", Change::Gone, "").unwrap();
    add("a", Change::New, "new").unwrap();
    add("a", Change::Gone, "").unwrap();
    let first = Changes {
        new: Some(told("new")),
        gone: true,
    };
    assert_eq!(pending.next(|_| false), Some(("a".to_owned(), first)));
    let second = Changes {
        new: None,
        gone: true,
    };
    assert_eq!(pending.next(|_| false), Some(("b".to_owned(), second)));
    assert_eq!(pending.next(|_| false), None);
}

#[test]
fn what_waits_is_bounded() {
    let mut pending = Pending::default();
    for number in 0..MAX_PENDING {
        let added = pending.add(number.to_string(), Change::New, Told::default());
        added.unwrap();
    }
    let again = pending.add("0".to_owned(), Change::Gone, Told::default());
    again.unwrap();
    let error = pending.add("more".to_owned(), Change::New, Told::default());
    assert!(matches!(error, Err(HttpError::Behind { .. })));
    pending.next(|_| false).unwrap();
    let long = told(&"x".repeat(100_000));
    pending.add("long".to_owned(), Change::New, long).unwrap();
    let (_, kept) = std::iter::from_fn(|| pending.next(|_| false))
        .last()
        .unwrap();
    assert_eq!(kept.new, Some(Told::default()));
}

#[test]
fn what_is_no_event_of_a_container_is_none() {
    let id = "0123456789abcdef".repeat(4);
    let network = json!({"Type": "network", "Action": "create", "Actor": {"ID": id}});
    let path = json!({"Type": "container", "Action": "start", "Actor": {"ID": "../../info"}});
    for message in [
        json!({}),
        json!({"Type": null, "Action": null}),
        network,
        path,
    ] {
        let event = Event::parse(message.to_string().as_bytes()).unwrap();
        assert_eq!(event, None, "{message}");
    }
    for garbage in ["", "null x", "[]", "{\"Type\":7}", "\u{feff}{}"] {
        assert!(Event::parse(garbage.as_bytes()).is_err(), "{garbage}");
    }
}

#[test]
fn filters_are_what_both_daemons_take() {
    let filters = filters(&[("type", &["container"]), ("event", &["create", "start"])]);
    let plain = filters
        .replace("%7B", "{")
        .replace("%7D", "}")
        .replace("%22", "\"")
        .replace("%3A", ":")
        .replace("%2C", ",");
    let json: Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(
        json,
        json!({"type": {"container": true}, "event": {"create": true, "start": true}})
    );
}
