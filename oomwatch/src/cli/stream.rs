//! Writing to a stream that others share, and may have made non-blocking. Blocks; knows no line and no log.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

/// As `write_all`, and waits for a stream that another process has made non-blocking.
///
/// # Errors
/// When the stream takes nothing any more.
pub(crate) fn write_whole(stream: &mut (impl Write + AsFd), mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match stream.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(stream)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(stream: &impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(stream, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{PipeReader, pipe, read_to_string},
        thread,
    };

    use rustix::io::ioctl_fionbio;

    use super::*;

    const LINES: usize = 5000;

    fn read_late(reader: PipeReader) -> thread::JoinHandle<String> {
        thread::spawn(move || read_to_string(reader).unwrap())
    }

    /// It was taken for the end of the stream, and of the daemon.
    #[test]
    fn a_full_stream_that_does_not_block_is_waited_for() {
        let (reader, mut writer) = pipe().unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        // The pipe is full before anybody reads.
        while writer.write(&[b'.'; 512]).is_ok() {}
        let read = read_late(reader);
        for _ in 0..LINES {
            write_whole(&mut writer, b"a line\n").unwrap();
        }
        drop(writer);
        assert_eq!(read.join().unwrap().matches("a line\n").count(), LINES);
    }
}
