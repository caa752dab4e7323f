//! `oomwatch unpin`: removes the programs and maps that `run --pin` left in the kernel.

use std::io::{Write as _, stdout};

use tracing::warn;

use super::{UnpinArgs, exit::Exit, output};

/// Removes oomwatch's pinned programs and maps, and prints their number.
///
/// # Errors
/// When the directory is missing, or a daemon reads it; and when stdout fails in another way than by being closed.
pub(crate) fn unpin(args: &UnpinArgs) -> anyhow::Result<Exit> {
    let unpinned = oomwatch::unpin(&args.dir)?;
    for path in &unpinned.foreign {
        warn!(path = %path.display(), "left alone: oomwatch did not make it");
    }
    let objects = unpinned.objects;
    let written = writeln!(
        stdout(),
        "{objects} pinned objects removed from {}",
        args.dir.display()
    );
    output::written(written)
}
