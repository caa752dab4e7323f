use std::{io::Write, sync::Arc};

use super::*;

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that `log` writes, without times.
fn said(log: impl FnOnce()) -> Vec<String> {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, log);
    let written = written.0.lock().unwrap();
    let text = String::from_utf8_lossy(&written);
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_window_takes_so_many_lines_and_then_the_next_one_begins() {
    let mut window = Window::default();
    for _ in 0..MAX_LINES {
        window = window.admit(100).unwrap();
        assert_eq!(Window::unpack(window.pack()), window);
    }
    assert_eq!(window.admit(100 + WINDOW_S - 1), None);
    // Another thread may have read the clock before.
    assert_eq!(window.admit(99), None);
    let next = window.admit(100 + WINDOW_S);
    assert_eq!(
        next,
        Some(Window {
            since_s: 100 + WINDOW_S,
            lines: 1
        })
    );
}

#[test]
fn what_is_left_out_is_counted_until_it_is_said() {
    static PLACE: Place = Place::new("here", 1, Level::WARN);
    for _ in 0..MAX_LINES {
        assert_eq!(PLACE.admit_at(7), Some(LeftOut(0)));
    }
    for _ in 0..3 {
        assert_eq!(PLACE.admit_at(8), None);
    }
    let next = PLACE.admit_at(7 + WINDOW_S);
    assert_eq!(next.and_then(LeftOut::get), Some(3));
    assert_eq!(PLACE.take_left_out().get(), None);
}

#[test]
fn a_flood_leaves_a_few_lines_and_its_tail_is_told() {
    let flood = || {
        for number in 0..1000 {
            warn!(number, "a stranger did something");
        }
        info!("another place is not concerned");
    };
    let lines = said(flood);
    assert_eq!(lines.len(), MAX_LINES as usize + 1, "{lines:#?}");
    assert_eq!(lines[0], "WARN a stranger did something number=0");

    let tail = said(say_left_out);
    // Other tests leave lines out at other places.
    let of_this = |line: &&String| line.contains("log/tests.rs:");
    let own: Vec<_> = tail.iter().filter(of_this).collect();
    assert_eq!(own.len(), 1, "{tail:#?}");
    assert!(own[0].starts_with("WARN log lines of one kind were left out place="));
    assert!(own[0].ends_with("left_out=990"), "{own:?}");
    assert!(!said(say_left_out).iter().any(|line| of_this(&line)));
}

#[test]
fn a_line_that_nobody_wants_is_not_left_out() {
    for _ in 0..1000 {
        // No subscriber: as in a program that has no log.
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            info!("not heard");
        });
    }
    let kind = |place: &&&Place| place.file == file!() && place.level == Level::INFO;
    let places = PLACES.lock().unwrap();
    assert!(!places.iter().any(|place| kind(&place)), "{places:?}");
}
