use std::{error::Error as _, sync::Mutex};

use tokio::sync::mpsc;

use super::{
    fake::{Reply, Server},
    *,
};

async fn ask(reply: fn() -> Reply) -> Result<Vec<u32>, SourceError> {
    let server = Server::start(move |_| reply());
    Daemon::at(&server.socket()).get("a test", "/x").await
}

fn cause(error: &SourceError) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn an_answer_is_read() {
    let answer = ask(|| Reply::Json("[1, 2]".to_owned())).await;
    assert_eq!(answer.unwrap(), [1, 2]);
}

#[tokio::test]
async fn a_refusal_is_told_with_the_daemons_words() {
    let error = ask(|| {
        Reply::Raw(
            "HTTP/1.1 404 Not Found\r\ncontent-length: 32\r\n\r\n{\"message\":\"no such container\"}\n"
                .to_owned(),
        )
    });
    let error = error.await.unwrap_err();
    assert_eq!(cause(&error), "status 404 Not Found: no such container");
    assert_eq!(error.to_string(), "a test failed");
}

#[tokio::test]
async fn half_an_answer_is_an_error() {
    let halves = [
        || Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[1,".to_owned()),
        || Reply::Raw("HTTP/1.1 200 OK\r\ncont".to_owned()),
        || Reply::Raw(String::new()),
        || Reply::Raw("SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
        || Reply::Json("[1, 2".to_owned()),
        || Reply::Json("{\"not\":\"a list\"}".to_owned()),
    ];
    for half in halves {
        let error = ask(half).await.unwrap_err();
        assert!(matches!(error, SourceError::Request { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_hangs_is_given_up() {
    let error = ask(|| Reply::Nothing).await.unwrap_err();
    assert!(matches!(error, SourceError::Hangs { .. }), "{error:?}");
}

#[tokio::test]
async fn no_socket_is_an_error_that_says_so() {
    let daemon = Daemon::at("/nonexistent/d.sock".as_ref());
    let error = daemon.get::<()>("a test", "/x").await.unwrap_err();
    assert!(matches!(error, SourceError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn an_endless_answer_is_refused() {
    let error = ask(|| Reply::Json(" ".repeat(MAX_ANSWER_BYTES + 1))).await;
    assert_eq!(cause(&error.unwrap_err()), "length limit exceeded");
}

#[tokio::test]
async fn lines_come_whole_however_they_were_cut() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = Mutex::new(Some(receiver));
    let server = Server::start(move |_| Reply::Stream(receiver.lock().unwrap().take().unwrap()));
    let mut lines = Daemon::at(&server.socket())
        .lines("a test", "/x")
        .await
        .unwrap();
    for part in ["one\ntw", "o\n\nthree", "\n"] {
        sender.send(part.to_owned()).unwrap();
    }
    sender.send("x".repeat(MAX_LINE_BYTES)).unwrap();
    sender.send("more of it".to_owned()).unwrap();
    sender.send(" and its end\nfour\n".to_owned()).unwrap();
    drop(sender);
    for expected in ["one", "two", "three", "four"] {
        assert_eq!(lines.next().await.unwrap().unwrap(), expected);
    }
    assert_eq!(lines.next().await.unwrap(), None);
}
