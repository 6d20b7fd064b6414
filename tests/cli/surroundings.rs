//! What a machine may lack: a GPU, any adapter, the default model.

use super::{bindery, run, stdout_of};
use std::path::Path;

/// What a command says on stderr.
fn said(args: &[&str]) -> String {
    let output = run(args);
    stdout_of(&output);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_software_adapter_that_nobody_named_is_warned_of_once() {
    let warning =
        "warning: no GPU found; running on a software adapter (the CPU), which is slow: see `bindery devices`\n";
    let short = ["run", "--raw", "--max-tokens", "1", "hi"];
    assert_eq!(said(&short), warning);
    assert_eq!(said(&["selftest", "--kernel", "silu_mul"]), warning);
    assert_eq!(said(&[&short[..], &["--device", "0"]].concat()), "");
}

#[test]
fn without_an_adapter_every_command_says_the_same() {
    let hint = "apt-get install mesa-vulkan-drivers libvulkan1 (it brings a software adapter, too)";
    for args in [&["devices"][..], &["selftest"], &["run", "hi"]] {
        // The loader then finds no driver at all.
        let output = bindery(args).env("VK_DRIVER_FILES", "/nonexistent").output().expect("the command starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("error: no Vulkan") && said.contains(hint), "{said}");
    }
}
