//! A lock on an open file, for as long as this lives. The kernel takes it back when a daemon dies.
//!
//! A child that any thread forks holds the file too, until it execs. Closing our side would leave the lock with it, so
//! the end of a [`Lock`] unlocks. Never waits, never touches the file's contents.

use std::fs::{File, TryLockError};

#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Fails at once where another open file holds the lock.
    pub(crate) fn take(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Where this fails, closing the file does it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_with_the_file_does_not_keep_the_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ours = File::open(file.path()).unwrap();
        let of_a_child = ours.try_clone().unwrap();
        let lock = Lock::take(ours).unwrap();
        let another = || Lock::take(File::open(file.path()).unwrap());
        assert!(matches!(another(), Err(TryLockError::WouldBlock)));
        drop(lock);
        assert!(another().is_ok());
        drop(of_a_child);
    }
}
