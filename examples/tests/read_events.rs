//! The example `read_events`, fed with what the library writes.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use oomwatch::OomEvent;

fn read_events(input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_read_events"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe holds two events; dropped, it ends.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn two_kills_of_two_containers_are_counted() {
    let first = OomEvent::example("c0ffee").unwrap();
    let mut second = OomEvent::example("decaf").unwrap();
    second.id.push_str("-2");
    let output = read_events(&format!("{}\n{}\n", first.to_json(), second.to_json()));
    assert!(output.status.success(), "{output:?}");
    let summary = String::from_utf8(output.stdout).unwrap();
    let expected = "       1  c0ffee\n       1  decaf\n       2  in all\n";
    assert_eq!(summary, expected);
}

#[test]
fn a_kill_that_was_claimed_late_counts_once_and_for_its_container() {
    let claimed = OomEvent::example("c0ffee").unwrap();
    let mut unclaimed = claimed.clone();
    unclaimed.container = None;
    let output = read_events(&format!("{}\n{}\n", unclaimed.to_json(), claimed.to_json()));
    let summary = String::from_utf8(output.stdout).unwrap();
    assert_eq!(summary, "       1  c0ffee\n       1  in all\n");
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let event = OomEvent::example("c0ffee").unwrap().to_json();
    let output = read_events(&format!("{event}\nnonsense\n"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("line 2: malformed"), "{errors}");
}
