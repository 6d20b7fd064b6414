//! What the CUDA backend's tests need, on a machine without a GPU too: NVRTC, NVIDIA's compiler as a library, and a C++
//! compiler for the emulation.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::run::{command, root, stdout, succeeds};
use crate::{packages, python};

/// The folder of NVRTC's libraries, from PyPI: in a virtual environment, installed if need be.
pub fn nvrtc() -> Result<PathBuf> {
    let python = python::with_requirements("cuda-venv", &root().join("tests/cuda_requirements.txt"))?;
    let packages = stdout(command(python).args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
        .context("asking the virtual environment for its folder")?;
    Ok(PathBuf::from(packages).join("nvidia/cu13/lib"))
}

/// Gets both compilers; the library path by which programs find NVRTC.
pub fn ensure_compilers() -> Result<OsString> {
    if std::env::var_os("CXX").is_none() && !succeeds(command("c++").arg("--version")) {
        ensure!(packages::has_apt(), "a C++ compiler is needed: install one, or name it by the variable CXX");
        println!("no C++ compiler: installing g++ with apt-get");
        packages::install(&["g++"], None)?;
    }
    let set = std::env::var_os("LD_LIBRARY_PATH");
    Ok(std::env::join_paths(std::iter::once(nvrtc()?).chain(set.iter().flat_map(std::env::split_paths)))?)
}
