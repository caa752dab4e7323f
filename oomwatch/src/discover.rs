//! Discovery: where registered containers come from when nobody registers them by hand.

pub(crate) mod cgroup;
// The parser knows more than discovery by path uses: pods and units are registered by the
// sources that know their names.
#[doc(hidden)]
pub mod path;
