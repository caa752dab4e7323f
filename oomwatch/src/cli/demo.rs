//! `oomwatch demo`: a real kill, harmless, in a cgroup made for it.
//!
//! The victim is this same program, started a second time as `demo-hog`: it waits to be put
//! into the cgroup and then takes more memory than the cgroup may have.

use std::{
    fs,
    io::{self, Read as _, Write as _, stdout},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use oomwatch::{OomEvent, Watcher};
use tokio::time::timeout;

use super::{Color, DemoArgs, exit::Exit, output::write_event};

const LIMIT_BYTES: u64 = 16 << 20;
/// Memory that the hog takes, in bytes. It is beyond the limit, and little enough for any host if the limit fails.
const HOG_BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;
const DEADLINE: Duration = Duration::from_secs(10);
const CONTAINER: &str = "oomwatch-demo";

/// Makes one kill and shows its event.
///
/// # Errors
/// When there is no privilege, or the kill does not happen or is not seen in time.
pub(crate) async fn demo(args: &DemoArgs, color: Color) -> anyhow::Result<Exit> {
    let host = Mounts::find()?;
    let watcher = Watcher::builder().start().await?;
    let mut events = watcher.events().await?;
    let cgroups = DemoCgroups::create(&host)?;
    watcher.add(CONTAINER, &cgroups.own).await?;
    eprintln!(
        "a process in {} takes {} MiB where {} MiB are allowed",
        cgroups.own.display(),
        HOG_BYTES >> 20,
        LIMIT_BYTES >> 20
    );
    let mut hog = Hog::start()?;
    cgroups.admit(hog.0.id())?;
    hog.go()?;
    let event = loop {
        let event = timeout(DEADLINE, events.next())
            .await
            .context("no event came within 10 s")?
            .context("the watcher stopped")?;
        // Other kills on the host are not this demo's; tier counters does not know who died.
        let is_own = match event.victim.pid {
            Some(pid) => pid == hog.0.id(),
            None => is_in_demo(&event),
        };
        if is_own {
            break event;
        }
    };
    let status = hog.0.wait().context("waiting for the victim")?;
    watcher.shutdown().await?;
    if status.signal() != Some(9) {
        bail!("the process was not killed: {status}");
    }
    match write_event(
        &mut stdout().lock(),
        &event,
        args.output,
        color.applies_to(&stdout()),
    ) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to stdout")
        }
        _ => Ok(Exit::Done),
    }
}

/// Whether an event is about the demo's own container.
fn is_in_demo(event: &OomEvent) -> bool {
    let container = event.container.as_ref();
    container.is_some_and(|container| container.id.as_str() == CONTAINER)
}

/// The victim's side: waits for a byte on stdin, then takes memory.
///
/// # Errors
/// When stdin or /proc fails.
pub(crate) fn hog() -> anyhow::Result<Exit> {
    let mut go = [0];
    io::stdin()
        .read_exact(&mut go)
        .context("waiting for the word to go")?;
    // It may have inherited protection from the OOM killer; to give that up needs no privilege.
    fs::write("/proc/self/oom_score_adj", "1000").context("giving up protection from OOM kills")?;
    let mut memory = vec![0_u8; HOG_BYTES];
    for page in memory.chunks_mut(PAGE_BYTES) {
        page.fill(1);
    }
    // Still here: there was no limit. The optimiser must not know that nobody looks.
    std::hint::black_box(&memory);
    Ok(Exit::Failure)
}

struct Hog(Child);

impl Hog {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let child = Command::new(program)
            .arg("demo-hog")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the victim")?;
        Ok(Self(child))
    }

    fn go(&mut self) -> anyhow::Result<()> {
        let mut stdin = self.0.stdin.take().context("the victim has no stdin")?;
        stdin.write_all(&[0]).context("telling the victim to go")
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // It may be dead already, which is the plan.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where cgroups are mounted.
struct Mounts {
    v2: PathBuf,
    /// The v1 memory hierarchy of a hybrid host.
    v1_memory: Option<PathBuf>,
}

impl Mounts {
    fn find() -> anyhow::Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
        let find = |file_system: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let point = fields.next()?;
                let found = fields.next()? == file_system
                    && (option.is_empty() || fields.next()?.split(',').any(|o| o == option));
                found.then(|| PathBuf::from(point))
            })
        };
        Ok(Self {
            v2: find("cgroup2", "").context("no cgroup v2 hierarchy is mounted")?,
            v1_memory: find("cgroup", "memory"),
        })
    }
}

/// The throw-away cgroup, and on a hybrid host the one on v1 that has the limit.
struct DemoCgroups {
    own: PathBuf,
    limited: PathBuf,
}

impl DemoCgroups {
    fn create(mounts: &Mounts) -> anyhow::Result<Self> {
        let name = format!("{CONTAINER}-{}", std::process::id());
        let own = mounts.v2.join(&name);
        let limited = match &mounts.v1_memory {
            Some(v1) => v1.join(&name),
            None => own.clone(),
        };
        let cgroups = Self { own, limited };
        create_directory(&cgroups.own)?;
        if mounts.v1_memory.is_some() {
            create_directory(&cgroups.limited)?;
            cgroups.limit("memory.limit_in_bytes")?;
        } else {
            cgroups.limit("memory.max").with_context(|| {
                format!(
                    "the memory controller is off; `echo +memory > {}/cgroup.subtree_control` turns it on",
                    mounts.v2.display()
                )
            })?;
            // Without swap accounting there is no such file, and no need.
            let _ = fs::write(cgroups.limited.join("memory.swap.max"), "0");
        }
        Ok(cgroups)
    }

    fn limit(&self, file: &str) -> anyhow::Result<()> {
        let path = self.limited.join(file);
        fs::write(&path, LIMIT_BYTES.to_string())
            .with_context(|| format!("setting {}", path.display()))
    }

    fn admit(&self, pid: u32) -> anyhow::Result<()> {
        for cgroup in [&self.own, &self.limited] {
            let path = cgroup.join("cgroup.procs");
            fs::write(&path, pid.to_string())
                .with_context(|| format!("putting process {pid} into {}", cgroup.display()))?;
        }
        Ok(())
    }
}

fn create_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir(path).with_context(|| format!("creating {}", path.display()))
}

impl Drop for DemoCgroups {
    fn drop(&mut self) {
        for cgroup in [&self.own, &self.limited] {
            // The victim is reaped, so this succeeds; if not, an empty cgroup harms nobody.
            let _ = fs::remove_dir(cgroup);
        }
    }
}
