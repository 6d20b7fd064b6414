//! `cargo xtask e2e`: tests/e2e, which drives a real `bindery serve` with clients that others wrote.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::adapters::Software;
use crate::run::{TEST_FEATURES, cargo, command, root, run as run_command, succeeds, target_dir};
use crate::{model, packages, python};

/// `cargo xtask e2e [PYTEST ARGUMENTS]`.
pub fn run(args: &[String]) -> Result<()> {
    let driver = if cfg!(target_os = "linux") { Software::Lavapipe.ensure()? } else { PathBuf::new() };
    model::fetch()?;
    pytest(driver.as_os_str(), args)
}

/// Builds the binary and runs pytest with these arguments; the server finds its adapter by these Vulkan drivers.
pub fn pytest(drivers: &OsStr, args: &[String]) -> Result<()> {
    ensure_browser()?;
    // As `cargo test --workspace` builds it: other features would build everything again.
    let mut build = cargo();
    run_command(build.args(["test", "--workspace", "--no-run", "--test", "cli"]).args(TEST_FEATURES))?;
    let folder = root().join("tests/e2e");
    let mut pytest = command(python::with_requirements("e2e-venv", &folder.join("requirements.txt"))?);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e"]).args(args);
    pytest.env("BINDERY", binary()).env("PYTHONDONTWRITEBYTECODE", "1");
    if !drivers.is_empty() {
        pytest.env("VK_DRIVER_FILES", drivers).env("VK_ICD_FILENAMES", drivers);
    }
    run_command(&mut pytest)
}

/// The page is looked at in Chromium.
fn ensure_browser() -> Result<()> {
    let is_there = |name: &str| succeeds(command(name).arg("--version"));
    if std::env::var_os("CHROMIUM").is_none() && !["chromium", "google-chrome"].into_iter().any(is_there) {
        ensure!(packages::has_apt(), "a Chromium is needed: install it, or name it by the variable CHROMIUM");
        println!("no Chromium: installing it with apt-get");
        packages::install(&["chromium"], None)?;
    }
    Ok(())
}

/// The `bindery` that the tests have built.
fn binary() -> PathBuf {
    target_dir().join("debug").join(format!("bindery{}", std::env::consts::EXE_SUFFIX))
}
