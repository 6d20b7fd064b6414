//! Pythons: the system's, and virtual environments under target/.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::packages;
use crate::run::{PYTHON, command, run, succeeds, target_dir};

const QUIET_INSTALL: [&str; 5] = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];

/// A Python with pip: the system's, else one in target/venv.
pub fn with_pip() -> Result<PathBuf> {
    if succeeds(command(PYTHON).args(["-m", "pip", "--version"])) { Ok(PYTHON.into()) } else { with_packages(&[]) }
}

/// The Python of target/venv, with these packages, in whatever version.
pub fn with_packages(packages: &[&str]) -> Result<PathBuf> {
    let python = environment("venv")?;
    let imports = format!("import sys, {}", ["os"].iter().chain(packages).copied().collect::<Vec<_>>().join(", "));
    if !succeeds(command(&python).args(["-c", &imports])) {
        run(command(&python).args(QUIET_INSTALL).args(packages))?;
    }
    Ok(python)
}

/// The Python of target/`name`, with exactly what the requirements file pins.
pub fn with_requirements(name: &str, requirements: &Path) -> Result<PathBuf> {
    let python = environment(name)?;
    let wanted = fs::read(requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let installed = target_dir().join(name).join("installed-requirements.txt");
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        run(command(&python).args(QUIET_INSTALL).arg("-r").arg(requirements))?;
        fs::write(&installed, wanted)?;
    }
    Ok(python)
}

/// The Python of the virtual environment target/`name`, made if need be.
fn environment(name: &str) -> Result<PathBuf> {
    let folder = target_dir().join(name);
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !succeeds(command(&python).args(["-m", "pip", "--version"])) {
        // Debian's python3 comes without the module that puts pip into a new environment.
        if !succeeds(command(PYTHON).args(["-c", "import ensurepip"])) {
            ensure!(packages::has_apt(), "{PYTHON} with its venv and pip modules is needed");
            println!("Python's venv module is missing: installing it with apt-get");
            packages::install(&["python3-venv"], None)?;
        }
        run(command(PYTHON).args(["-m", "venv", "--clear"]).arg(&folder))?;
    }
    Ok(python)
}
