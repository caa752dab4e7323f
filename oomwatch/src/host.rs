//! What this host can do for oomwatch: read-only facts, each with a remedy if needed.
//!
//! Nothing here decides how the watcher works. This module tries the same things and returns the results.

use std::{fmt, path::PathBuf};

use crate::{
    cgroup::hierarchy::{Hierarchy, MemoryMode},
    id::CgroupId,
    probe::{
        DEFAULT_RING_BYTES, Probe, ProbeConfig, ProbeError, layout,
        privilege::may_load_programs,
        {self},
    },
    tier::{Tier, TierChoice},
};

/// How much a finding limits what `oomwatch run` can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// All is well.
    Good,
    /// It works, with something missing.
    Degraded,
    /// More privilege is needed, to find out or to work.
    NoPrivilege,
    /// It does not work.
    Broken,
}

/// One checked fact about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The checked subject.
    pub subject: &'static str,
    /// The result of the check.
    pub found: String,
    /// The severity of the result.
    pub severity: Severity,
    /// The remedy, if any.
    pub remedy: Option<&'static str>,
}

impl Finding {
    fn good(subject: &'static str, found: impl fmt::Display) -> Self {
        Self {
            subject,
            found: found.to_string(),
            severity: Severity::Good,
            remedy: None,
        }
    }

    fn poor(
        subject: &'static str,
        found: impl fmt::Display,
        severity: Severity,
        remedy: &'static str,
    ) -> Self {
        Self {
            subject,
            found: found.to_string(),
            severity,
            remedy: Some(remedy),
        }
    }
}

/// All findings about this host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostReport {
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
}

impl HostReport {
    /// Looks at the host. Loads and attaches the probe for a moment; must be called in a
    /// tokio runtime with I/O enabled.
    #[must_use]
    pub fn collect() -> Self {
        let mut findings = vec![kernel(), privilege()];
        findings.extend(cgroups());
        findings.extend(probe());
        findings.push(tracefs());
        Self { findings }
    }

    /// The worst of all findings.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.findings
            .iter()
            .map(|finding| finding.severity)
            .max()
            .unwrap_or(Severity::Good)
    }
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    Finding::good(
        "kernel",
        format_args!(
            "{} {}",
            name.release().to_string_lossy(),
            name.machine().to_string_lossy()
        ),
    )
}

fn privilege() -> Finding {
    const REMEDY: &str = "run as root, or give the binary CAP_BPF, CAP_PERFMON and \
                          CAP_DAC_READ_SEARCH (CAP_SYS_ADMIN before 5.8)";
    if may_load_programs() {
        Finding::good("privilege", "may load eBPF programs")
    } else {
        Finding::poor(
            "privilege",
            "neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON",
            Severity::NoPrivilege,
            REMEDY,
        )
    }
}

fn cgroups() -> Vec<Finding> {
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(error) => {
            return vec![Finding::poor(
                "cgroups",
                error,
                Severity::Broken,
                "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2",
            )];
        }
    };
    let mut findings = vec![match hierarchy.mode() {
        MemoryMode::Unified => Finding::good(
            "cgroups",
            format_args!("v2 at {}", hierarchy.mount().display()),
        ),
        MemoryMode::Hybrid => Finding::poor(
            "cgroups",
            format_args!(
                "hybrid: v2 at {} without the memory controller, which is on v1",
                hierarchy.mount().display()
            ),
            Severity::Degraded,
            "kills are reported from the tracepoint alone, without counters to hold them \
             against; boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }];
    if hierarchy.root().is_ok_and(|root| root != CgroupId::ROOT) {
        findings.push(Finding::poor(
            "cgroup namespace",
            format_args!(
                "{} is not the root of the hierarchy",
                hierarchy.mount().display()
            ),
            Severity::Degraded,
            "victims outside of it have no path; run in the host's cgroup namespace \
             (docker run --cgroupns=host, hostPID is not enough)",
        ));
    }
    if hierarchy.counts_locally() {
        findings.push(Finding::poor(
            "memory_localevents",
            "memory.events counts each cgroup alone",
            Severity::Degraded,
            "mount cgroup2 without memory_localevents to have kills in sub-cgroups counted",
        ));
    }
    findings
}

/// The best that the kernel's types allow.
fn btf() -> Finding {
    let layout = match probe::read_layout() {
        Ok(layout) => layout,
        Err(error) => return broken_probe("BTF", &error),
    };
    match layout::tier_of(&layout.config) {
        Some(tier) => Finding::good("BTF", format_args!("{}: tier {tier}", probe::KERNEL_BTF)),
        None => Finding::poor(
            "BTF",
            format_args!("{} lacks what the probe needs", probe::KERNEL_BTF),
            Severity::Broken,
            "use a kernel from 5.8 on that is not patched beyond recognition",
        ),
    }
}

fn probe() -> Vec<Finding> {
    let mut findings = vec![btf()];
    let config = ProbeConfig {
        ring_bytes: DEFAULT_RING_BYTES,
        tier: TierChoice::Auto,
        log: false,
    };
    match Probe::start(&config, None) {
        Ok(probe) => {
            findings.push(Finding::good("probe", "loaded and attached"));
            if probe.tier() != Tier::Pid {
                findings.push(oom_control(&probe));
                findings.extend(gaps(&probe));
            }
            findings.push(tier(probe.tier()));
            soften(&mut findings);
        }
        Err(error) => {
            findings.push(broken_probe("probe", &error));
            if error.calls_for_lesser_tier() && has_counters() {
                findings.push(tier(Tier::Counters));
                soften(&mut findings);
            }
        }
    }
    findings
}

/// Something broken for a better tier is only a degradation where another tier works.
fn soften(findings: &mut [Finding]) {
    for finding in findings {
        finding.severity = finding.severity.min(Severity::Degraded);
    }
}

fn has_counters() -> bool {
    Hierarchy::find().is_ok_and(|hierarchy| hierarchy.lacks_counters().is_none())
}

/// The tier that `run` would use.
fn tier(tier: Tier) -> Finding {
    match tier {
        Tier::Btf | Tier::BtfPid => Finding::good("tier", tier),
        Tier::Pid => Finding::poor(
            "tier",
            "pid: who was killed is known; whose limit was hit and how much memory it had is not",
            Severity::Degraded,
            "a better tier needs BTF, see above",
        ),
        Tier::Counters => Finding::poor(
            "tier",
            "counters: kills are counted for each container, and who was killed is unknown",
            Severity::Degraded,
            "a better tier needs eBPF, see above",
        ),
    }
}

fn broken_probe(subject: &'static str, error: &ProbeError) -> Finding {
    let (severity, remedy) = match error {
        ProbeError::Privilege(_) if may_load_programs() => (
            Severity::Broken,
            "lockdown, seccomp or a security module forbids eBPF: see the kernel's log",
        ),
        ProbeError::Privilege(_) => (
            Severity::NoPrivilege,
            "see privilege; `oomwatch run --tier counters` needs none, and counts only",
        ),
        ProbeError::NoBtf { .. } => (
            Severity::Broken,
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ),
        ProbeError::NoObject => (Severity::Broken, "build with `cargo xtask build`"),
        _ => (Severity::Broken, "see the error; RUST_LOG=debug says more"),
    };
    Finding::poor(subject, error.with_causes(), severity, remedy)
}

fn oom_control(probe: &Probe) -> Finding {
    if probe.sees_oom_control() {
        Finding::good(
            "limits",
            "out_of_memory() is hooked: events say which limit was hit",
        )
    } else {
        Finding::poor(
            "limits",
            "cannot hook out_of_memory(): events do not say which limit was hit",
            Severity::Degraded,
            "needs fentry: CONFIG_FUNCTION_TRACER, and on arm64 kernel 6.0",
        )
    }
}

/// Members that this kernel lacks. Kernels before 5.17 count no group kills; that is no defect.
fn gaps(probe: &Probe) -> Option<Finding> {
    let missing: Vec<String> = probe
        .gaps()
        .iter()
        .filter(|gap| gap.member != "MEMCG_OOM_GROUP_KILL")
        .map(|gap| format!("{} ({})", gap.member, gap.reason))
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::poor(
            "fields",
            missing.join(", "),
            Severity::Degraded,
            "events say null for what depends on these; please report this kernel",
        )
    })
}

fn tracefs() -> Finding {
    let mounted = [
        PathBuf::from("/sys/kernel/tracing/events"),
        PathBuf::from("/sys/kernel/debug/tracing/events"),
    ]
    .iter()
    .any(|path| path.exists());
    Finding::good(
        "tracefs",
        if mounted {
            "mounted"
        } else {
            "not mounted; only tier pid needs it (mount -t tracefs none /sys/kernel/tracing)"
        },
    )
}
