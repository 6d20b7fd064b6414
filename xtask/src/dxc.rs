//! `cargo xtask dxc`: every kernel, translated to HLSL, through the compiler that DirectX 12 has.
//!
//! naga writes HLSL that it does not check. Microsoft's compiler is a library that runs on Linux too; a package of PyPI has
//! it among its sources. CI does not run this.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::python;
use crate::run::{cargo, command, root, run as run_command, target_dir};

const USAGE: &str = "usage: cargo xtask dxc";
const PACKAGE: &str = "compushady";
const VERSION: &str = "0.17.5";
const LIBRARY: &str = "compushady/backends/libdxcompiler_x86_64.so.3.7";

/// Writes every kernel's HLSL and compiles it.
pub fn run(args: &[String]) -> Result<()> {
    if !args.is_empty() {
        bail!(USAGE);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("this task is for Linux on x86-64; on Windows `bindery selftest` compiles and runs the kernels");
    }
    let python = python::with_pip()?;
    let library = library(&python)?;
    let folder = target_dir().join("hlsl");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let test = ["test", "--lib", "every_kernel_translates_to_spirv_msl_and_hlsl"];
    run_command(cargo().args(test).env("BINDERY_HLSL", &folder))?;
    run_command(command(&python).arg(root().join("xtask/src/compile_hlsl.py")).args([&library, &folder]))
}

/// The compiler, fetched if need be.
fn library(python: &PathBuf) -> Result<PathBuf> {
    let folder = target_dir().join("dxc");
    let sources = folder.join(format!("{PACKAGE}-{VERSION}"));
    let library = sources.join(LIBRARY);
    if !library.is_file() {
        let pip =
            ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"];
        run_command(command(python).args(pip).arg("--dest").arg(&folder).arg(format!("{PACKAGE}=={VERSION}")))?;
        let archive = folder.join(format!("{PACKAGE}-{VERSION}.tar.gz"));
        run_command(command(python).args(["-m", "tarfile", "--extract"]).args([&archive, &folder]))?;
    }
    Ok(library)
}
