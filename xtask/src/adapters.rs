//! Vulkan adapters on Linux: which ones work, and how the software ones get here.
//!
//! macOS (Metal) and Windows (DirectX 12, with WARP where there is no GPU) need nothing from this file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::run::{PYTHON, command, stdout};

/// A software adapter that the tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// Mesa's.
    Lavapipe,
    /// Chromium's: no f16, subgroups of 4, 10 storage buffers in a stage.
    SwiftShader,
}

impl Software {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Lavapipe, Self::SwiftShader];

    fn name(self) -> &'static str {
        match self {
            Self::Lavapipe => "lavapipe",
            Self::SwiftShader => "SwiftShader",
        }
    }

    /// The line that gets one here.
    fn how_to_install(self) -> &'static str {
        match self {
            Self::Lavapipe => {
                "Debian, Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers; Fedora: dnf install vulkan-loader \
                 mesa-vulkan-drivers; Arch: pacman -S vulkan-icd-loader vulkan-swrast"
            }
            Self::SwiftShader => {
                "Debian: apt-get install chromium-common; elsewhere install Google Chrome or Chromium, or set \
                 SWIFTSHADER_ICD to the path of its vk_swiftshader_icd.json"
            }
        }
    }

    /// Manifests that may be its own, whether or not their libraries load.
    fn manifests(self) -> Vec<PathBuf> {
        match self {
            Self::Lavapipe => {
                let folders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
                let files = folders.iter().flat_map(|folder| Path::new(folder).read_dir().into_iter().flatten());
                let lavapipe = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    name.starts_with("lvp_icd") && name.ends_with(".json")
                };
                // Named lvp_icd.json or lvp_icd.<architecture>.json, by Mesa's release.
                files.flatten().map(|entry| entry.path()).filter(lavapipe).collect()
            }
            Self::SwiftShader => {
                let folders = ["/usr/lib/chromium", "/usr/lib64/chromium-browser", "/opt/google/chrome"];
                let chosen = std::env::var_os("SWIFTSHADER_ICD").map(PathBuf::from);
                let installed = folders.iter().map(|folder| Path::new(folder).join("vk_swiftshader_icd.json"));
                chosen.into_iter().chain(installed).filter(|path| path.is_file()).collect()
            }
        }
    }

    /// Its manifest, when that gives a device.
    fn find(self) -> Result<Option<PathBuf>> {
        for manifest in self.manifests() {
            if !devices(Some(manifest.as_os_str()))?.is_empty() {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// Its manifest; installs it when it is missing and apt is there.
    pub fn ensure(self) -> Result<PathBuf> {
        if let Some(manifest) = self.find()? {
            return Ok(manifest);
        }
        if !packages::has_apt() {
            bail!("{} is missing. {}", self.name(), self.how_to_install());
        }
        println!("{} is missing: installing it with apt-get", self.name());
        self.install().with_context(|| format!("{} is missing. {}", self.name(), self.how_to_install()))?;
        let found = self.find()?;
        found.with_context(|| format!("{} was installed but gives no device. {}", self.name(), self.how_to_install()))
    }

    fn install(self) -> Result<()> {
        let packages: &[&str] = match self {
            Self::Lavapipe => &["libvulkan1", "mesa-vulkan-drivers"],
            Self::SwiftShader => &["libvulkan1", "chromium-common"],
        };
        if self == Self::Lavapipe
            && let Some(release) = packages::mesa_backports()
            && packages::install(packages, Some(&release)).is_ok()
        {
            return Ok(());
        }
        packages::install(packages, None)
    }
}

/// Makes sure that some adapter works here: the machine's own, else lavapipe.
pub fn ensure_any() -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    if let Some(device) = devices(None)?.first() {
        println!("Vulkan device: {device}");
        return Ok(());
    }
    println!("no Vulkan device here: the software adapter will do, on the CPU");
    Software::Lavapipe.ensure().map(drop)
}

/// Names of the Vulkan devices that the loader finds with these manifests (or its own, with `None`).
fn devices(manifests: Option<&OsStr>) -> Result<Vec<String>> {
    let mut probe = command(PYTHON);
    probe.args(["-c", include_str!("vulkan_devices.py")]);
    if let Some(manifests) = manifests {
        // Loaders before 1.3.207 know only the second name.
        probe.env("VK_DRIVER_FILES", manifests).env("VK_ICD_FILENAMES", manifests);
    }
    // A driver that crashes at start-up gives no device either.
    match stdout(&mut probe) {
        Some(names) => Ok(names.lines().map(str::to_owned).collect()),
        None if stdout(command(PYTHON).arg("--version")).is_none() => bail!("{PYTHON} is needed, and is not here"),
        None => Ok(Vec::new()),
    }
}

/// `cargo xtask adapters`.
pub fn run(_args: &[String]) -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("no Vulkan adapter is needed on this system; see `bindery devices`");
        return Ok(());
    }
    let found = devices(None)?;
    println!("found by the loader: {}", if found.is_empty() { "none".to_owned() } else { found.join(", ") });
    for software in Software::ALL {
        match software.find()? {
            Some(manifest) => println!("{}: {}", software.name(), manifest.display()),
            None => println!("{}: missing. {}", software.name(), software.how_to_install()),
        }
    }
    Ok(())
}
