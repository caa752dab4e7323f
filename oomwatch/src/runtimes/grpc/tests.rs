use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Code, Request};

use super::{
    Client, GrpcError,
    fake::{Reply, Server},
};

const LIMIT: Duration = Duration::from_secs(5);
const METHOD: &str = "/test.Echo/Say";

/// `String` and `()` are messages to prost.
async fn ask(server: &Server, limit: Duration) -> Result<String, GrpcError> {
    let client = Client::connect(&server.socket(), limit).await?;
    client.call(METHOD, Request::new("hello".to_owned())).await
}

#[tokio::test]
async fn an_answer_comes_back() {
    let server = Server::start(|asked| {
        assert_eq!(asked.method, METHOD);
        Reply::one(&format!("{} to you", asked.message::<String>()))
    });
    assert_eq!(ask(&server, LIMIT).await.unwrap(), "hello to you");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let server = Server::start(|_| Reply::Refused(Code::NotFound, "no such container"));
    let error = ask(&server, LIMIT).await.unwrap_err();
    assert!(error.is_refusal() && !error.is_unimplemented());
    let GrpcError::Refused { status, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(status.message(), "no such container");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let server = Server::start(|_| Reply::Nothing);
    let error = ask(&server, Duration::from_millis(20)).await.unwrap_err();
    assert!(
        matches!(error, GrpcError::Hangs { method: METHOD, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn garbage_is_an_error() {
    let server = Server::start(|_| Reply::Messages(vec![b"\xff\xff\xff".as_slice().into()]));
    let error = ask(&server, LIMIT).await.unwrap_err();
    assert!(matches!(error, GrpcError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn no_socket_is_an_error_that_says_so() {
    let error = Client::connect("/nonexistent/x.sock".as_ref(), LIMIT).await;
    assert!(matches!(error, Err(GrpcError::Connect(_))));
}

#[tokio::test]
async fn a_subscription_gives_what_comes_and_ends() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let server = Server::start(move |_| Reply::Stream(receiver.lock().unwrap().take().unwrap()));
    let client = Client::connect(&server.socket(), LIMIT).await.unwrap();
    sender
        .send(prost::Message::encode_to_vec(&"one".to_owned()).into())
        .unwrap();
    let mut answers = client.subscribe::<_, String>(METHOD, Request::new(()));
    assert_eq!(answers.next().await.unwrap().as_deref(), Some("one"));
    drop(sender);
    assert_eq!(answers.next().await.unwrap(), None);
}
