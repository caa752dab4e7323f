//! Which machines to boot: kernels of the matrix with nothing but the guest programme, and root
//! images with a system and container runtimes, all on one kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{
    image::{self, Recipe},
    initramfs,
    kernel::{self, Kernel, Spec},
    modules,
};
use crate::paths::{self, Workspace};

/// The kernel of all machines with a root image: runtimes differ with their versions, and not
/// with the kernel below, and this one runs all of them.
const IMAGE_KERNEL: &str = "6.12";

/// The machines that were asked for.
#[derive(Default)]
pub(crate) struct Plan {
    specs: Vec<Spec>,
    /// Images of the user's own.
    kernels: Vec<Kernel>,
    recipes: Vec<Recipe>,
}

/// Memory of a machine, and of one with a runtime or with thousands of processes.
const ENOUGH: &str = "1G";
const MUCH: &str = "2G";

/// One machine that can be booted.
pub(crate) struct Trial {
    /// The name in reports and of the artifacts' directory.
    pub(crate) name: String,
    /// The name in the summary.
    pub(crate) row: String,
    pub(crate) kernel: Kernel,
    pub(crate) initramfs: PathBuf,
    /// As QEMU takes it.
    pub(crate) memory: &'static str,
    /// Where the guest goes on from, if not from its initramfs.
    pub(crate) image: Option<Image>,
}

/// A root image.
pub(crate) struct Image {
    pub(crate) recipe: Recipe,
    pub(crate) path: PathBuf,
}

/// What came of a plan.
#[derive(Default)]
pub(crate) struct Ready {
    pub(crate) trials: Vec<Trial>,
    /// Machines that cannot be booted, by their rows. The others are run all the same.
    pub(crate) failed: Vec<(String, anyhow::Error)>,
}

impl Plan {
    /// Every machine there is.
    pub(crate) fn all() -> Self {
        Self {
            specs: kernel::ALL.to_vec(),
            kernels: Vec::new(),
            recipes: image::ALL.to_vec(),
        }
    }

    /// The machines of these names, or all where nothing was asked for.
    pub(crate) fn choose(kernels: &[String], machines: &[String]) -> Result<Self> {
        if kernels.is_empty() && machines.is_empty() {
            return Ok(Self::all());
        }
        let mut plan = Self::default();
        for wanted in kernels {
            plan.add_kernel(wanted)?;
        }
        for wanted in machines {
            let recipe = image::ALL.iter().find(|it| it.machine() == *wanted);
            plan.recipes.push(*recipe.with_context(|| {
                let names: Vec<_> = image::ALL.iter().map(Recipe::machine).collect();
                format!(
                    "there is no machine {wanted}: give one of {}",
                    names.join(", ")
                )
            })?);
        }
        Ok(plan)
    }

    fn add_kernel(&mut self, wanted: &str) -> Result<()> {
        if let Some(spec) = kernel::ALL.iter().find(|spec| spec.name == wanted) {
            self.specs.push(*spec);
        } else if wanted.contains('/') || Path::new(wanted).is_file() {
            self.kernels.push(Kernel::from_path(Path::new(wanted))?);
        } else {
            let names: Vec<_> = kernel::ALL.iter().map(|spec| spec.name).collect();
            let names = names.join(", ");
            bail!("there is no kernel {wanted}: give one of {names}, or the path of a bzImage");
        }
        Ok(())
    }

    /// The rows of all its machines, for a summary that shows what was not run.
    pub(crate) fn rows(&self) -> Vec<String> {
        let specs = self
            .specs
            .iter()
            .map(|spec| format!("kernel {}", spec.name));
        let kernels = self
            .kernels
            .iter()
            .map(|kernel| format!("kernel {}", kernel.name));
        specs
            .chain(kernels)
            .chain(self.recipes.iter().map(image_row))
            .collect()
    }

    /// Gets the kernels and images, and writes what machines boot from into `artifacts`.
    pub(crate) fn prepare(self, workspace: &Workspace, artifacts: &Path) -> Result<Ready> {
        paths::create_dir(artifacts)?;
        let mut ready = Ready::default();
        if !(self.specs.is_empty() && self.kernels.is_empty()) {
            let initramfs = artifacts.join("initramfs.cpio");
            initramfs::write(workspace, &initramfs)?;
            let mut kernels = self.kernels;
            for spec in &self.specs {
                kernels.push(kernel::fetch(&workspace.cache, spec)?);
            }
            let trials = kernels.into_iter();
            ready
                .trials
                .extend(trials.map(|kernel| of_kernel(kernel, &initramfs)));
        }
        if !self.recipes.is_empty() {
            let prepared = prepare_images(workspace, artifacts, &self.recipes, &mut ready);
            if let Err(error) = prepared {
                ready
                    .failed
                    .push(("machines with runtimes".to_owned(), error));
            }
        }
        Ok(ready)
    }
}

/// One machine of the matrix has room for what takes most; for the others it would take too long.
fn is_newest(kernel: &Kernel) -> bool {
    let newest = kernel::ALL.last();
    newest.is_some_and(|newest| newest.name == kernel.name)
}

fn of_kernel(kernel: Kernel, initramfs: &Path) -> Trial {
    Trial {
        name: kernel.name.clone(),
        row: format!("kernel {} ({})", kernel.name, kernel.version),
        initramfs: initramfs.to_owned(),
        memory: if is_newest(&kernel) { MUCH } else { ENOUGH },
        image: None,
        kernel,
    }
}

/// An image that cannot be had costs its own machine and no other.
fn prepare_images(
    workspace: &Workspace,
    artifacts: &Path,
    recipes: &[Recipe],
    ready: &mut Ready,
) -> Result<()> {
    let spec = kernel::ALL.iter().find(|spec| spec.name == IMAGE_KERNEL);
    let spec = spec.with_context(|| format!("no kernel {IMAGE_KERNEL} in the matrix"))?;
    let kernel = kernel::fetch(&workspace.cache, spec)?;
    let initramfs = artifacts.join("initramfs-images.cpio");
    let modules = modules::load(&kernel.modules())?;
    initramfs::write_for_images(workspace, modules, &initramfs)?;
    for recipe in recipes {
        let row = image_row(recipe);
        match image::fetch(&workspace.cache, recipe) {
            Ok(path) => ready.trials.push(Trial {
                name: recipe.machine(),
                row,
                kernel: kernel.clone(),
                initramfs: initramfs.clone(),
                memory: MUCH,
                image: Some(Image {
                    recipe: *recipe,
                    path,
                }),
            }),
            Err(error) => ready.failed.push((row, error)),
        }
    }
    Ok(())
}

fn image_row(recipe: &Recipe) -> String {
    format!("runtimes {} ({IMAGE_KERNEL})", recipe.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(kernels: &[&str], machines: &[&str]) -> Result<Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (kernels, machines): (Vec<_>, Vec<_>) = (owned(kernels), owned(machines));
        Ok(Plan::choose(&kernels, &machines)?.rows())
    }

    #[test]
    fn no_choice_means_every_machine() {
        let expected = [
            "kernel 5.10",
            "kernel 6.1",
            "kernel 6.12",
            "kernel 7.3",
            "runtimes bookworm (6.12)",
            "runtimes sid (6.12)",
        ];
        assert_eq!(rows(&[], &[]).unwrap(), expected);
    }

    #[test]
    fn a_choice_means_nothing_else() {
        assert_eq!(rows(&["6.1"], &[]).unwrap(), ["kernel 6.1"]);
        let sid = rows(&[], &["runtimes-sid"]).unwrap();
        assert_eq!(sid, ["runtimes sid (6.12)"]);
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        let error = rows(&["4.19"], &[]).unwrap_err().to_string();
        assert!(error.contains("5.10, 6.1, 6.12, 7.3"), "{error}");
        let error = rows(&[], &["sid"]).unwrap_err().to_string();
        assert!(error.contains("runtimes-bookworm, runtimes-sid"), "{error}");
        assert!(rows(&["./no/such/image"], &[]).is_err());
    }
}
