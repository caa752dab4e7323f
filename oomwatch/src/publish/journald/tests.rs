//! The entries that a journald at the other end of the socket gets.

use std::{
    collections::BTreeMap,
    io::{IoSliceMut, Read as _, Seek as _},
    os::fd::OwnedFd,
};

use rustix::{
    fs::fcntl_get_seals,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use super::*;
use crate::{
    containers::container::ContainerDetails,
    event::{
        Kind,
        fixture::{event_at, event_in},
    },
};

/// An event with all fields, and with text by somebody with bad intentions.
fn hostile() -> OomEvent {
    let details = ContainerDetails {
        name: Some("web\nPRIORITY=0".into()),
        pod: Some("pod-1".into()),
        pod_uid: Some("uid-1".into()),
        namespace: Some("shop".into()),
        ..ContainerDetails::default()
    };
    let mut event = event_in(5, "c1", details);
    event.victim.pid = Some(1234);
    event.victim.uid = Some(7);
    event.victim.comm = Some("a\\x0ab=c".into());
    event.victim.cgroup_path = Some("/a/b".into());
    event.trigger.pid = Some(99);
    event.trigger.comm = Some("conmon".into());
    event.limit.max_bytes = Some(1 << 28);
    event.limit.usage_bytes = Some(1 << 27);
    event.limit.path = Some("/a".into());
    event
}

/// Reads an entry as journald does.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|&byte| byte == b'\n').unwrap();
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        let (name, value, rest) = match line.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&line[..equals], &line[equals + 1..], rest),
            None => {
                let length = u64::from_le_bytes(rest[..8].try_into().unwrap());
                let (value, rest) = rest[8..].split_at(usize::try_from(length).unwrap());
                (line, value, rest.strip_prefix(b"\n").unwrap())
            }
        };
        let before = fields.insert(text(name), text(value));
        assert_eq!(before, None, "each field once");
        entry = rest;
    }
    fields
}

#[test]
fn an_entry_has_the_fields_to_search_by() {
    let fields = fields(&entry::entry(&hostile()));
    let shown: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn what_is_not_known_is_left_out_and_an_exiting_task_is_no_alarm() {
    let mut event = event_at(5);
    event.kind = Kind::AlreadyExiting;
    let fields = fields(&entry::entry(&event));
    assert_eq!(fields["PRIORITY"], "6");
    assert_eq!(fields["MESSAGE_ID"], JOURNAL_MESSAGE_ID);
    for absent in [
        "OOMWATCH_POD",
        "OOMWATCH_VICTIM_PID",
        "OOMWATCH_LIMIT_BYTES",
    ] {
        assert!(!fields.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn an_entry_is_a_datagram() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let journald = UnixDatagram::bind(&socket).unwrap();
    let mut publisher = JournaldPublisher::at(&socket);
    publisher.publish(hostile().into()).await.unwrap();
    let mut datagram = vec![0; 65536];
    let length = journald.recv(&mut datagram).await.unwrap();
    assert_eq!(&datagram[..length], entry::entry(&hostile()));
}

/// A message of journald's own, and the descriptor that came with it.
fn receive(journald: BorrowedFd<'_>) -> io::Result<(usize, OwnedFd)> {
    let mut data = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut data)];
    let received = recvmsg(journald, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((received.bytes, files.expect("a descriptor")))
}

#[tokio::test]
async fn an_entry_that_is_too_long_for_a_datagram_is_a_sealed_file() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let journald = UnixDatagram::bind(&socket).unwrap();
    let mut event = hostile();
    event.victim.cgroup_path = Some("/a".repeat(1 << 20));
    let mut publisher = JournaldPublisher::at(&socket);
    publisher.publish(event.clone().into()).await.unwrap();
    let received = journald.async_io(Interest::READABLE, || receive(journald.as_fd()));
    let (bytes, file) = received.await.unwrap();
    assert_eq!(bytes, 0, "nothing but the descriptor");
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    assert_eq!(fcntl_get_seals(&file).unwrap(), all);
    let mut file = File::from(file);
    file.rewind().unwrap();
    let mut text = Vec::new();
    file.read_to_end(&mut text).unwrap();
    assert_eq!(text, entry::entry(&event));
}

#[tokio::test]
async fn a_journald_that_is_not_there_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut publisher = JournaldPublisher::at(&socket);
    assert_eq!(publisher.delivery(), Delivery::AtLeastOnce);
    for _ in 0..2 {
        let error = publisher.publish(event_at(1).into()).await.unwrap_err();
        assert!(matches!(error, PublishError::Failed(_)), "{error}");
        let cause = crate::retry::causes(&error);
        assert!(cause.contains(socket.to_str().unwrap()), "{cause}");
    }
    let journald = UnixDatagram::bind(&socket).unwrap();
    publisher.publish(event_at(1).into()).await.unwrap();
    let mut datagram = vec![0; 65536];
    assert!(journald.recv(&mut datagram).await.unwrap() > 0);
}
