//! The names of what an event may lack ([`super::Quality::missing`]). A name that is not in this list cannot be read
//! back from the store.

/// All names.
const ALL: [&str; 20] = [
    "constraint",
    "container",
    "container.name",
    "container.pod",
    "counter",
    "group",
    "limit",
    "recounts",
    "time",
    "trigger",
    "victim",
    "victim.cgroup",
    "victim.cgroup_path",
    "victim.comm",
    "victim.is_init",
    "victim.memory",
    "victim.oom_score_adj",
    "victim.pid",
    "victim.start",
    "victim.uid",
];

/// The name that equals `word`.
pub(super) fn known(word: &str) -> Option<&'static str> {
    ALL.into_iter().find(|name| *name == word)
}
