#!/bin/sh
# Checks and measures Bindery on this machine: an x86-64 Linux (glibc 2.35 or newer, as where the folder was packed) with an
# NVIDIA driver. No Rust, no CUDA toolkit, no network.
# Results are written to results/ as they come, so that what is there counts even if this is cut off.
# Vulkan stages need the Vulkan loader (Debian, Ubuntu: libvulkan1); the driver brings the rest.
cd "$(dirname "$0")" || exit 1
chmod +x bin/* 2>/dev/null
if [ -f lib/nvrtc.tar.xz ]; then
  tar -C lib -xJf lib/nvrtc.tar.xz 2>/dev/null || python3 -m tarfile -e lib/nvrtc.tar.xz lib
fi
LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec bin/gpu-check-runner gpu-check-run "$@"
