//! `cargo xtask coopmat`: the kernels with cooperative matrices on a software adapter, against the reference.
//!
//! The first lavapipe with cooperative matrices (f16 factors, f32 sums) is that of Mesa 26, which needs a newer C library
//! than many systems have. So it is put into a Debian tree of its own, and the `bindery` that was built here is run by the
//! tree's loader with the tree's libraries. That lavapipe lists 8 x 8; it multiplies 16 x 16, which most GPUs list, as well. CI
//! does not run this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::run::{cargo, command, run as run_command, stdout, target_dir};

const USAGE: &str = "usage: cargo xtask coopmat [TREE]; the Debian tree is made in TREE [default: target/coopmat]";
const RELEASE: &str = "trixie";
const BACKPORTS: &str = "trixie-backports";
const MIRROR: &str = "http://deb.debian.org/debian";
const DRIVER: &str = "usr/lib/x86_64-linux-gnu/libvulkan_lvp.so";

/// Makes the tree if it is not there, then lets `bindery selftest` compare every such kernel with the reference.
pub fn run(args: &[String]) -> Result<()> {
    let tree = match args {
        [] => target_dir().join("coopmat"),
        [tree] if !tree.starts_with('-') => std::path::absolute(tree)?,
        _ => bail!(USAGE),
    };
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("this task is for Linux on x86-64; elsewhere try `bindery selftest --variant matrix` on a GPU");
    }
    if !tree.join("installed").is_file() {
        make_tree(&tree).with_context(|| format!("could not make {}; remove it to start again", tree.display()))?;
    }
    let manifest = tree.join("lvp.json");
    let library = tree.join(DRIVER);
    let text = format!(
        "{{\"ICD\": {{\"api_version\": \"1.4.0\", \"library_path\": {library:?}}}, \"file_format_version\": \"1.0.1\"}}\n"
    );
    fs::write(&manifest, text).with_context(|| format!("cannot write {}", manifest.display()))?;

    // With the features that the tests build it with: another set would build everything again.
    run_command(cargo().args(["test", "--workspace", "--no-run", "--test", "cli"]))?;
    let devices = stdout(in_tree(&tree, &manifest).args(["devices", "--json"])).unwrap_or_default();
    if !devices.contains("\"matrix\"") {
        bail!("the adapter in {} lists no cooperative matrices:\n{devices}", tree.display());
    }
    for size in ["8", "16"] {
        for kernel in ["matmul", "paged_attention", "tiny_model"] {
            let selftest = ["selftest", "--device", "llvmpipe", "--all", "--matrix-size", size, "--kernel", kernel];
            run_command(in_tree(&tree, &manifest).args(selftest))?;
        }
    }
    Ok(())
}

/// Debian with the Mesa of its backports, about 500 MB.
fn make_tree(tree: &Path) -> Result<()> {
    if !packages::has_apt() {
        bail!("apt-get and debootstrap are needed, as on Debian and Ubuntu");
    }
    packages::install(&["debootstrap"], None)?;
    let path = tree.to_str().context("the tree's path is not UTF-8")?;
    let suites = format!("--extra-suites={BACKPORTS}");
    let include = "--include=ca-certificates,libvulkan1,mesa-vulkan-drivers";
    packages::run_as_root(&["debootstrap", "--variant=minbase", include, &suites, RELEASE, path, MIRROR])?;
    packages::run_as_root(&["cp", "/etc/resolv.conf", &format!("{path}/etc/resolv.conf")])?;
    let newer = format!(
        "apt-get update -q && apt-get install -y -q --no-install-recommends -t {BACKPORTS} mesa-vulkan-drivers && touch \
         /installed"
    );
    packages::run_as_root(&["chroot", path, "sh", "-c", &newer])
}

/// `bindery`, run by the tree's loader.
fn in_tree(tree: &Path, manifest: &Path) -> Command {
    let libraries = [tree.join("usr/lib/x86_64-linux-gnu"), tree.join("lib/x86_64-linux-gnu")];
    let libraries = libraries.map(|path: PathBuf| path.display().to_string()).join(":");
    let mut bindery = command(tree.join("lib64/ld-linux-x86-64.so.2"));
    bindery.env("VK_DRIVER_FILES", manifest).env("VK_ICD_FILENAMES", manifest);
    bindery.args(["--library-path", &libraries]).arg(target_dir().join("debug/bindery"));
    bindery
}
