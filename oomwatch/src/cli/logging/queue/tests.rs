use std::{
    io::{BufRead as _, BufReader, Read as _, pipe},
    sync::Arc,
    thread,
};

use rustix::fs::OFlags;

use super::*;

fn notice(dropped: u64) -> Vec<u8> {
    format!("{dropped} dropped\n").into_bytes()
}

fn line(number: usize) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

fn full(now: Instant) -> Waiting {
    let mut waiting = Waiting::default();
    (0..=MAX_LINES).for_each(|number| waiting.push(line(number)));
    assert_eq!(waiting.next(now), Some(Next::Dropped(1)));
    waiting
}

#[test]
fn dropped_lines_are_said_first_and_once() {
    let now = Instant::now();
    let mut waiting = full(now);
    for number in 0..MAX_LINES {
        assert_eq!(waiting.next(now), Some(Next::Line(line(number))));
    }
    assert_eq!(waiting.next(now), None);
    assert!(!waiting.is_busy());
}

#[test]
fn a_slow_reader_reads_more_than_how_much_it_misses() {
    let now = Instant::now();
    let mut waiting = full(now);
    waiting.push(line(0));
    assert!(matches!(waiting.next(now), Some(Next::Line(_))));
    assert_eq!(waiting.next(now + NOTICE_PAUSE), Some(Next::Dropped(1)));
    waiting.push(line(0));
    waiting.push(line(0));
    let rest: Vec<Next> = std::iter::from_fn(|| waiting.next(now + NOTICE_PAUSE)).collect();
    assert_eq!(rest.len(), MAX_LINES + 1);
    assert_eq!(rest.last(), Some(&Next::Dropped(1)));
}

#[test]
fn long_lines_take_more_room() {
    let mut waiting = Waiting::default();
    waiting.push(vec![0; MAX_BYTES + 1]);
    (0..3).for_each(|_| waiting.push(vec![0; MAX_BYTES / 2]));
    assert_eq!((waiting.lines.len(), waiting.dropped), (2, 2));
    waiting.push_last(line(0));
    assert_eq!((waiting.lines.len(), waiting.dropped), (3, 2));
}

#[test]
fn what_the_end_leaves_out_is_counted_and_the_newest_stay() {
    let now = Instant::now();
    let mut waiting = full(now);
    waiting.push_last(b"why\n".into());
    waiting.cut();
    let left_out = (MAX_LINES + 1 - LAST_LINES) as u64;
    assert_eq!(waiting.next(now), Some(Next::Dropped(left_out)));
    let rest: Vec<Next> = std::iter::from_fn(|| waiting.next(now)).collect();
    assert_eq!(rest.len(), LAST_LINES);
    assert_eq!(rest.last(), Some(&Next::Line(b"why\n".into())));
    assert_eq!(waiting.bytes, 0);
}

#[test]
fn what_could_not_be_written_is_said_with_the_next_line() {
    let now = Instant::now();
    let mut waiting = Waiting {
        unwritten: 3,
        ..Waiting::default()
    };
    assert_eq!(waiting.next(now), None);
    waiting.push(line(1));
    assert_eq!(waiting.next(now), Some(Next::Dropped(3)));
    assert_eq!(waiting.next(now), Some(Next::Line(line(1))));
}

#[test]
fn nobody_waits_for_a_pipe_that_is_not_read_and_a_reader_is_told_what_it_missed() {
    let (reader, writer) = pipe().unwrap();
    let queue = Arc::new(Queue::default());
    let filled = Arc::clone(&queue);
    thread::spawn(move || write(&filled, writer, notice));
    let line = [vec![b'.'; 1023], vec![b'\n']].concat();
    (0..2 * MAX_LINES).for_each(|_| queue.push(line.clone()));
    assert!(!queue.wait_emptied(Duration::ZERO));

    let mut lines = BufReader::new(reader).lines();
    let (mut read, mut dropped) = (0, 0);
    while read + dropped < 2 * MAX_LINES {
        let line = lines.next().unwrap().unwrap();
        match line.strip_suffix(" dropped") {
            Some(number) => dropped += number.parse::<usize>().unwrap(),
            None => read += 1,
        }
    }
    assert!(dropped > 0);
    assert!(queue.wait_emptied(END_LIMIT));
}

/// As a terminal is that another process has set so: such a write fails, and nothing is lost by it.
#[test]
fn a_stream_that_does_not_block_is_waited_for() {
    let (mut reader, mut writer) = pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let line = vec![b'.'; 1 << 20];
    let expected = line.len();
    let written = thread::spawn(move || write_whole(&mut writer, &line));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    written.join().unwrap().unwrap();
    assert_eq!(read.len(), expected);
}
