//! Embeds the eBPF object that `cargo xtask build` names in `OOMWATCH_EBPF_OBJECT`.
//!
//! Without it the crate still compiles, so that `cargo check`, clippy and the unit tests
//! need neither nightly nor bpf-linker; such a build says at start that it has no probe.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=OOMWATCH_EBPF_OBJECT");
    let Some(out_dir) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        panic!("cargo sets OUT_DIR for build scripts");
    };
    let object = match env::var_os("OOMWATCH_EBPF_OBJECT").map(PathBuf::from) {
        Some(path) => {
            println!("cargo:rerun-if-changed={}", path.display());
            fs::read(&path)
                .unwrap_or_else(|error| panic!("OOMWATCH_EBPF_OBJECT={}: {error}", path.display()))
        }
        None => Vec::new(),
    };
    if let Err(error) = fs::write(out_dir.join("oomwatch-ebpf.o"), object) {
        panic!("{}: {error}", out_dir.display());
    }
}
