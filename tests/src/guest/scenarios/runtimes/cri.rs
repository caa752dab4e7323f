//! containerd's CRI plugin, asked for pods as the kubelet does it, with either driver of cgroups.
//!
//! Pods are in the node's network, for which nothing has to be set up. Their labels are not the
//! kubelet's, so that what an event tells of a pod comes from the interface and not from them.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{HOG_ARCHIVE, HOG_IMAGE, LABEL, LIMIT_BYTES, Runtime, tools};
use crate::{
    guest::{case::KILL_LIMIT, context::Context},
    wait::wait_until,
};

mod client;
mod configuration;
mod messages;
mod sandbox;

use client::Client;
use messages::{
    CONTAINER, Container, ContainerMetadata, ContainerSecurityContext, ImageSpec, LinuxContainer,
    LinuxSandbox, NODE, NamespaceOption, Resources, Sandbox, SandboxMetadata,
    SandboxSecurityContext,
};
pub(super) use sandbox::killed as sandbox_killed;

const DAEMON: &str = "containerd.service";
const CONFIGURATION: &str = "/etc/containerd/config.toml";
/// For the plugin to be there after a restart, to know the image, and to remove something.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The namespace of Kubernetes that pods are in, and containerd's that all of them are in.
const NAMESPACE: &str = "shop";
const CONTAINERD_NAMESPACE: &str = "k8s.io";
const CONTAINER_NAME: &str = "hog";
const ATTEMPT: u32 = 2;
/// The label by which a pod is found again.
const NAME_LABEL: &str = "name";

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Systemd,
    Cgroupfs,
}

/// containerd by its CRI plugin.
pub(super) struct Cri {
    driver: Driver,
    /// Whether a pod may use as much as its container, as the kubelet sets it, and not without
    /// end. The sandbox needs some of it, so the pod's limit is reached first.
    pod_is_limited: bool,
}

impl Cri {
    pub(super) const SYSTEMD: Self = Self {
        driver: Driver::Systemd,
        pod_is_limited: false,
    };
    pub(super) const CGROUPFS: Self = Self {
        driver: Driver::Cgroupfs,
        pod_is_limited: false,
    };
    pub(super) const POD_LIMIT: Self = Self {
        driver: Driver::Systemd,
        pod_is_limited: true,
    };

    /// Runs a pod with one container, in which a shell runs `script`; returns the container's id.
    fn run_pod(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        let mut client = Client::connect()?;
        let sandbox = self.sandbox(name);
        let sandbox_id = client.run_sandbox(&sandbox)?;
        if self.pod_is_limited {
            let limit = LIMIT_BYTES.to_string();
            tools::write_in(context, &self.pod_cgroup(name), "memory.max", &limit)?;
        }
        let container = container(script)?;
        let id = client.create_container(&sandbox_id, sandbox, container)?;
        client.start_container(&id)?;
        Ok(id)
    }

    fn sandbox(&self, name: &str) -> Sandbox {
        Sandbox {
            metadata: Some(SandboxMetadata {
                name: pod_name(name),
                uid: pod_uid(name),
                namespace: NAMESPACE.to_owned(),
            }),
            labels: [(NAME_LABEL.to_owned(), name.to_owned())].into(),
            linux: Some(LinuxSandbox {
                cgroup_parent: match self.driver {
                    // The last name of the path, by which systemd knows the rest.
                    Driver::Systemd => self.pod_cgroup(name),
                    Driver::Cgroupfs => format!("/kubepods/burstable/{}", self.pod_cgroup(name)),
                },
                security_context: Some(SandboxSecurityContext {
                    namespaces: Some(NAMESPACES),
                }),
            }),
        }
    }

    /// The directory name of a pod's cgroup.
    fn pod_cgroup(&self, name: &str) -> String {
        let uid = pod_uid(name);
        match self.driver {
            Driver::Systemd => format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_")),
            Driver::Cgroupfs => format!("pod{uid}"),
        }
    }

    /// Writes containerd's configuration, and starts it anew where it had another one.
    fn configure(&self, context: &Context) -> Result<()> {
        let version = wait_for("the CRI plugin", |client| client.version().map(Some))?;
        let wanted = configuration::text(&version.runtime_version, self.driver);
        if fs::read_to_string(CONFIGURATION).is_ok_and(|text| text == wanted) {
            return Ok(());
        }
        let (runtime, version) = (version.runtime_name, version.runtime_version);
        let driver = self.driver;
        context
            .report
            .note(&format!("CRI: {runtime} {version}, {driver:?}"));
        fs::write(CONFIGURATION, wanted).with_context(|| format!("writing {CONFIGURATION}"))?;
        tools::tool(context, &["systemctl", "restart", DAEMON]).map(drop)
    }
}

const NAMESPACES: NamespaceOption = NamespaceOption {
    network: NODE,
    pid: CONTAINER,
};

fn container(script: &str) -> Result<Container> {
    Ok(Container {
        metadata: Some(ContainerMetadata {
            name: CONTAINER_NAME.to_owned(),
            attempt: ATTEMPT,
        }),
        image: Some(ImageSpec {
            image: HOG_IMAGE.to_owned(),
        }),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        labels: [(LABEL.0.to_owned(), LABEL.1.to_owned())].into(),
        linux: Some(LinuxContainer {
            resources: Some(Resources {
                memory_limit_bytes: LIMIT_BYTES.try_into()?,
            }),
            security_context: Some(ContainerSecurityContext {
                namespaces: Some(NAMESPACES),
            }),
        }),
    })
}

/// Kubernetes has no underscores in names.
fn pod_name(name: &str) -> String {
    name.replace('_', "-")
}

/// A UUID that is the same for the same name.
fn pod_uid(name: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, name).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    let digits = format!("{:032x}", half(0) << 64 | half(1));
    let mut groups = Vec::new();
    let mut rest = digits.as_str();
    for length in [8, 4, 4, 4] {
        let (group, left) = rest.split_at(length);
        groups.push(group);
        rest = left;
    }
    groups.push(rest);
    groups.join("-")
}

/// Asks a plugin until it gives a value; it may still be starting.
fn wait_for<T>(what: &str, ask: impl Fn(&mut Client) -> Result<Option<T>>) -> Result<T> {
    let mut last = None;
    let found = wait_until(READY_LIMIT, what, || {
        match Client::connect().and_then(|mut client| ask(&mut client)) {
            Ok(found) => Ok(found),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        }
    });
    found.map_err(|error| match last {
        Some(last) => last.context(error),
        None => error,
    })
}

/// Asks for something until it is done, as the kubelet does: while the process of a container is
/// ending, containerd 1.6 fails to stop it for its shim is gone.
fn insist(what: &str, ask: impl Fn(&mut Client) -> Result<()>) -> Result<()> {
    wait_for(what, |client| ask(client).map(Some))
}

impl Runtime for Cri {
    fn start(&self, context: &Context) -> Result<()> {
        tools::only(context, &[DAEMON])?;
        self.configure(context)?;
        // Copied into every sandbox, and not in every image.
        tools::once("hosts", || {
            fs::write("/etc/hosts", "127.0.0.1 localhost\n").context("writing /etc/hosts")
        })?;
        tools::once("cri-image", || {
            let import = ["ctr", "--namespace", CONTAINERD_NAMESPACE, "image"];
            let import = [&import[..], &["import", HOG_ARCHIVE]].concat();
            tools::tool(context, &import).map(drop)
        })?;
        wait_for("the image in the CRI plugin", |client| {
            Ok(client.has_image(HOG_IMAGE)?.then_some(()))
        })
    }

    fn run(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.run_pod(context, name, script)
    }

    /// Nothing is removed by the runtime itself here: the kubelet does it, and so do we.
    fn run_once(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        let id = self.run_pod(context, name, script)?;
        let mut client = Client::connect()?;
        wait_until(KILL_LIMIT, &format!("the end of {name}"), || {
            Ok(client.has_ended(&id)?.then_some(()))
        })?;
        insist(&format!("the removal of {id}"), |client| {
            client.remove_container(&id)
        })?;
        self.remove(context, name)?;
        Ok(id)
    }

    fn remove(&self, _context: &Context, name: &str) -> Result<()> {
        let sandbox = Client::connect()?.find_sandbox((NAME_LABEL, name))?;
        insist(&format!("the removal of {sandbox}"), |client| {
            client.stop_sandbox(&sandbox)?;
            client.remove_sandbox(&sandbox)
        })
    }

    fn restart(&self, context: &Context, while_down: &dyn Fn() -> Result<()>) -> Result<()> {
        tools::tool(context, &["systemctl", "stop", DAEMON])?;
        while_down()?;
        tools::tool(context, &["systemctl", "start", DAEMON])?;
        wait_for("the CRI plugin", |client| {
            Ok(client.has_image(HOG_IMAGE)?.then_some(()))
        })
    }

    fn cgroup(&self, id: &str) -> String {
        match self.driver {
            Driver::Systemd => format!("cri-containerd-{id}.scope"),
            Driver::Cgroupfs => id.to_owned(),
        }
    }

    fn sources(&self) -> &'static [&'static str] {
        &["containerd", "cri"]
    }

    fn names(&self, name: &str) -> Vec<(&'static str, Value)> {
        let scope = if self.pod_is_limited {
            "pod"
        } else {
            "container"
        };
        vec![
            ("container.runtime", json!("containerd")),
            ("container.namespace", json!(NAMESPACE)),
            ("container.pod", json!(pod_name(name))),
            ("container.pod_uid", json!(pod_uid(name))),
            ("container.name", json!(CONTAINER_NAME)),
            ("container.attempt", json!(ATTEMPT)),
            ("container.image", json!(HOG_IMAGE)),
            ("container.is_sandbox", json!(false)),
            (
                "container.containerd_namespace",
                json!(CONTAINERD_NAMESPACE),
            ),
            ("container.labels.tier", json!(LABEL.1)),
            ("scope", json!(scope)),
            ("limit.max_bytes", json!(LIMIT_BYTES)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_uid_is_a_uuid_of_its_name() {
        let uid = pod_uid("web");
        let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(uid, pod_uid("web"));
        assert_ne!(uid, pod_uid("web-1"));
    }

    #[test]
    fn each_driver_has_its_own_parent() {
        let parent = |cri: &Cri| cri.sandbox("web").linux.unwrap().cgroup_parent;
        let uid = pod_uid("web");
        let underscored = uid.replace('-', "_");
        assert_eq!(
            parent(&Cri::SYSTEMD),
            format!("kubepods-burstable-pod{underscored}.slice")
        );
        assert_eq!(
            parent(&Cri::CGROUPFS),
            format!("/kubepods/burstable/pod{uid}")
        );
    }
}
