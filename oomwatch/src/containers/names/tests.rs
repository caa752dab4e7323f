use super::*;
use crate::{containers::identity::Identity, id::CgroupId};

const CONTAINERD: (SourceNumber, RuntimeApi) = (0, RuntimeApi::Containerd);
const CRI: (SourceNumber, RuntimeApi) = (1, RuntimeApi::Cri);

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

fn hex() -> ContainerId {
    id(&"0123456789abcdef".repeat(4))
}

fn key(api: RuntimeApi, id: &ContainerId, namespace: Option<&str>) -> RuntimeKey {
    let realm = match namespace {
        Some(namespace) => Realm::Containerd(namespace.into()),
        None => Realm::of(api),
    };
    let id = id.as_str().to_owned();
    RuntimeKey { id, realm }
}

/// A container whose id is made up has no place; others are in the cgroup of [`container`].
fn seen(
    names: &mut Names,
    source: (SourceNumber, RuntimeApi),
    id: ContainerId,
    details: ContainerDetails,
) {
    let key = key(source.1, &id, details.containerd_namespace.as_deref());
    let cgroup = (!is_runtimes_id(id.as_str())).then_some(CgroupId(9));
    names.seen(source, key, cgroup, details);
}

fn told(
    names: &mut Names,
    source: (SourceNumber, RuntimeApi),
    id: ContainerId,
    details: ContainerDetails,
) {
    names.told(source, key(source.1, &id, None), details);
}

fn named(name: &str) -> ContainerDetails {
    ContainerDetails {
        name: Some(name.to_owned()),
        ..ContainerDetails::default()
    }
}

fn in_namespace(namespace: &str) -> ContainerDetails {
    ContainerDetails {
        containerd_namespace: Some(namespace.to_owned()),
        ..ContainerDetails::default()
    }
}

fn container(id: ContainerId, runtime: Option<&str>) -> Container {
    Container {
        id,
        cgroup_id: CgroupId(9),
        identity: Identity::Path,
        inside: None,
        details: ContainerDetails {
            runtime: runtime.map(str::to_owned),
            ..ContainerDetails::default()
        },
    }
}

fn name_of(names: &Names, of: &ContainerId) -> Option<String> {
    let named = names.name(&container(of.clone(), None))?;
    named.details.name.clone()
}

#[test]
fn who_knows_more_is_believed_in_either_order() {
    for order in [[CONTAINERD, CRI], [CRI, CONTAINERD]] {
        let mut names = Names::default();
        for source in order {
            seen(&mut names, source, hex(), named(source.1.as_str()));
        }
        assert_eq!(name_of(&names, &hex()).as_deref(), Some("cri"));
    }
}

#[test]
fn an_events_words_are_a_name_and_not_the_last_word() {
    const PODMAN: (SourceNumber, RuntimeApi) = (0, RuntimeApi::Podman);
    let mut names = Names::default();
    names.listed(PODMAN, &[], 1);
    let web = container(hex(), Some("podman"));
    told(&mut names, PODMAN, hex(), named("web"));
    assert_eq!(name_of(&names, &hex()).as_deref(), Some("web"));
    assert!(names.awaits(&web));
    seen(&mut names, PODMAN, hex(), ContainerDetails::default());
    assert_eq!(name_of(&names, &hex()).as_deref(), Some("web"));
    assert!(!names.awaits(&web));
    told(&mut names, PODMAN, hex(), named("renamed"));
    assert!(!names.awaits(&web));
}

#[test]
fn what_only_one_knows_is_kept() {
    let mut names = Names::default();
    seen(&mut names, CONTAINERD, hex(), in_namespace("k8s.io"));
    seen(&mut names, CRI, hex(), named("app"));
    let named = names.name(&container(hex(), Some("containerd"))).unwrap();
    assert_eq!(
        named.details.containerd_namespace.as_deref(),
        Some("k8s.io")
    );
    assert_eq!(named.details.name.as_deref(), Some("app"));
    assert_eq!(named.details.runtime.as_deref(), Some("containerd"));
}

#[test]
fn a_name_outlives_its_container_by_the_tombstone_time() {
    let mut names = Names::default();
    seen(&mut names, CRI, hex(), named("app"));
    names.gone(CRI.0, &key(CRI.1, &hex(), None), 5);
    names.expire(4 + TOMBSTONE_NS, |_| false);
    assert!(name_of(&names, &hex()).is_some());
    names.expire(5 + TOMBSTONE_NS, |_| true);
    assert!(
        name_of(&names, &hex()).is_some(),
        "its cgroup is there still"
    );
    names.expire(5 + 2 * TOMBSTONE_NS, |_| false);
    assert_eq!(name_of(&names, &hex()), None);
}

#[test]
fn one_that_comes_back_is_not_forgotten() {
    let mut names = Names::default();
    seen(&mut names, CRI, hex(), named("old"));
    names.gone(CRI.0, &key(CRI.1, &hex(), None), 5);
    seen(&mut names, CRI, hex(), named("new"));
    names.expire(5 + TOMBSTONE_NS, |_| false);
    assert_eq!(name_of(&names, &hex()).as_deref(), Some("new"));
}

#[test]
fn a_listing_tells_who_is_gone_but_only_its_own() {
    let mut names = Names::default();
    seen(&mut names, CRI, id("a"), named("a"));
    seen(&mut names, CRI, id("b"), named("b"));
    seen(&mut names, CONTAINERD, id("b"), named("b"));
    names.listed(CRI, &[key(CRI.1, &id("x"), None)], 5);
    names.expire(5 + TOMBSTONE_NS, |_| false);
    assert_eq!(name_of(&names, &id("a")), None);
    assert!(name_of(&names, &id("b")).is_some(), "containerd has it");
}

#[test]
fn the_same_id_in_two_namespaces_is_two_containers() {
    let (first, second) = (Some(CgroupId(3)), Some(CgroupId(4)));
    let of = |namespace: &str| key(CONTAINERD.1, &id("web"), Some(namespace));
    let mut names = Names::default();
    names.seen(CONTAINERD, of("a"), first, named("one"));
    names.seen(CONTAINERD, of("b"), second, named("two"));
    let at = |names: &Names, cgroup: Option<CgroupId>| {
        let container = Container {
            cgroup_id: cgroup.unwrap(),
            ..container(id("web"), None)
        };
        names.name(&container).and_then(|named| {
            assert_eq!(
                named.details.realm.as_deref(),
                Some(if cgroup == first { "a" } else { "b" })
            );
            named.details.name.clone()
        })
    };
    assert_eq!(at(&names, first).as_deref(), Some("one"));
    assert_eq!(at(&names, second).as_deref(), Some("two"));
    names.listed(CONTAINERD, &[of("a"), of("b")], 5);
    assert!(names.gone.is_empty());
    names.gone(CONTAINERD.0, &of("a"), 5);
    assert_eq!(names.gone, [(5, of("a"))]);
    assert_eq!(at(&names, second).as_deref(), Some("two"));
}

/// Docker's and Podman's ids are made up; hostile ones may be alike.
#[test]
fn details_of_one_runtime_never_land_on_anothers() {
    let mut names = Names::default();
    seen(&mut names, (0, RuntimeApi::Docker), hex(), named("dockers"));
    seen(&mut names, (1, RuntimeApi::Podman), hex(), named("podmans"));
    for (runtime, name) in [("docker", "dockers"), ("podman", "podmans")] {
        let named = names.name(&container(hex(), Some(runtime))).unwrap();
        assert_eq!(named.details.name.as_deref(), Some(name));
        assert_eq!(named.identity, Identity::Runtime);
    }
    assert!(names.name(&container(hex(), Some("cri-o"))).is_none());
}

#[test]
fn a_users_runtime_says_nothing_of_what_root_made() {
    for namespace in ["uid:1000/k8s.io", "in:/docker/x/k8s.io"] {
        let mut names = Names::default();
        let key = key(CONTAINERD.1, &hex(), Some(namespace));
        names.seen(CONTAINERD, key.clone(), None, named("app"));
        assert!(names.name(&container(hex(), Some("containerd"))).is_none());
        names.seen(CONTAINERD, key, Some(CgroupId(9)), named("app"));
        let named = names.name(&container(hex(), Some("containerd"))).unwrap();
        assert_eq!(named.details.realm.as_deref(), Some(namespace));
    }
}

#[test]
fn a_claim_gets_no_name_and_waits_for_none() {
    let mut names = Names::default();
    seen(&mut names, CRI, hex(), named("app"));
    let claim = Container {
        identity: Identity::Claimed,
        ..container(hex(), None)
    };
    assert!(names.name(&claim).is_none());
    assert!(!names.awaits(&claim) && names.askable(&claim).is_empty());
}

#[test]
fn a_name_is_where_its_runtime_says() {
    let mut names = Names::default();
    let key = key(CRI.1, &hex(), None);
    names.seen(CRI, key.clone(), None, named("app"));
    assert_eq!(names.place(&hex(), None), None);
    assert!(names.take_unplaced(&key, |_| true));
    assert!(
        !names.take_unplaced(&key, |_| true),
        "a source is asked once"
    );
    names.seen(CRI, key, Some(CgroupId(4)), named("app"));
    assert_eq!(names.place(&hex(), None), Some(CgroupId(4)));
    assert!(names.name(&container(hex(), None)).is_none());
    assert_eq!(names.place(&hex(), Some("docker")), None);
}

#[test]
fn a_second_container_of_a_name_has_nothing_of_the_first() {
    let mut names = Names::default();
    seen(&mut names, CRI, id("web"), named("first"));
    names.gone(CRI.0, &key(CRI.1, &id("web"), None), 5);
    seen(
        &mut names,
        CONTAINERD,
        id("web"),
        ContainerDetails::default(),
    );
    assert_eq!(name_of(&names, &id("web")), None);
}

#[test]
fn only_who_may_know_a_container_is_waited_for() {
    let mut names = Names::default();
    assert!(
        !names.awaits(&container(hex(), Some("docker"))),
        "nobody is there"
    );
    names.listed((0, RuntimeApi::Docker), &[], 0);
    assert!(names.awaits(&container(hex(), Some("docker"))));
    assert!(names.awaits(&container(hex(), None)));
    assert!(!names.awaits(&container(hex(), Some("cri-o"))));
    assert!(
        !names.awaits(&container(id("web-1"), None)),
        "added by hand"
    );
    seen(&mut names, (0, RuntimeApi::Docker), hex(), named("app"));
    assert!(!names.awaits(&container(hex(), Some("docker"))));
    names.lost(0, RuntimeApi::Docker);
    let other = id(&"f".repeat(64));
    assert!(!names.awaits(&container(other, Some("docker"))));
}

/// containerd reports a pod's container before its cgroup exists, with an image: CRI was not asked then.
#[test]
fn containerds_word_does_not_replace_cris() {
    let image = |namespace: &str| ContainerDetails {
        image: Some("busybox:1".to_owned()),
        ..in_namespace(namespace)
    };
    let mut names = Names::default();
    let container = container(hex(), Some("containerd"));
    seen(&mut names, CONTAINERD, hex(), image("k8s.io"));
    assert!(!names.awaits(&container), "nobody knows more");
    names.listed(CRI, &[], 0);
    assert!(names.awaits(&container));
    assert_eq!(
        names.askable(&container),
        [(CRI.0, key(CRI.1, &hex(), None))]
    );
    seen(&mut names, CRI, hex(), named("app"));
    assert!(!names.awaits(&container));
    assert!(names.askable(&container).is_empty());

    let mut names = Names::default();
    names.listed(CRI, &[], 0);
    seen(&mut names, CONTAINERD, hex(), image("default"));
    assert!(!names.awaits(&container), "none of CRI's");
    assert!(names.askable(&container).is_empty());
}

#[test]
fn labels_are_bounded() {
    let mut names = Names::default();
    let mut details = named(&"ü".repeat(MAX_NAME_BYTES));
    for number in 0..1_000 {
        let label = (format!("label-{number}"), "x".repeat(200_000));
        details.labels.extend([label]);
    }
    seen(&mut names, CRI, hex(), details);
    let kept = names.name(&container(hex(), None)).unwrap();
    let labels = &kept.details.labels;
    let bytes: usize = labels
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    assert!(
        (MAX_LABELS_BYTES / 2..=MAX_LABELS_BYTES).contains(&bytes),
        "{bytes}"
    );
    assert!(kept.details.name.as_ref().unwrap().len() <= MAX_NAME_BYTES);
}

#[test]
fn a_host_has_no_more_names_than_fit() {
    let mut names = Names::default();
    for number in 0..=MAX_CONTAINERS {
        seen(&mut names, CRI, id(&number.to_string()), named("x"));
    }
    assert_eq!(names.known.len(), MAX_CONTAINERS);
    names.gone(CRI.0, &key(CRI.1, &id("7"), None), 1);
    seen(&mut names, CRI, id("new"), named("x"));
    assert!(name_of(&names, &id("new")).is_some());
    assert_eq!(name_of(&names, &id("7")), None);
}
