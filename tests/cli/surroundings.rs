//! What a machine may lack: a GPU, any adapter, the default model.

use super::{DEVICE, bindery, has_gpu, run, stdout_of};

/// What a command says on stderr.
fn said(args: &[&str]) -> String {
    let output = run(args);
    stdout_of(&output);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_software_adapter_that_nobody_named_is_warned_of_once() {
    let warning = match has_gpu() {
        true => "",
        false => {
            "warning: no usable GPU found; running on a software adapter (the CPU), which is slow: see `bindery devices`\n"
        }
    };
    let short = ["run", "--raw", "--max-tokens", "1", "hi"];
    assert_eq!(said(&short), warning);
    assert_eq!(said(&["selftest", "--kernel", "silu_mul"]), warning);
    assert_eq!(said(&[&short[..], &DEVICE[..]].concat()), "");
}

#[cfg(target_os = "linux")]
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

#[test]
fn the_model_may_come_from_the_environment() {
    let in_an_empty_folder = |variable: &str| {
        let mut command = bindery(&["run", "hi"]);
        command.current_dir(env!("CARGO_TARGET_TMPDIR")).env("BINDERY_MODEL", variable);
        String::from_utf8(command.output().expect("the command starts").stderr).expect("UTF-8")
    };
    assert!(in_an_empty_folder("/nonexistent/m.gguf").contains("/nonexistent/m.gguf"));
    let said = in_an_empty_folder("");
    assert!(
        ["--model FILE.gguf", "BINDERY_MODEL", "cargo xtask model"].iter().all(|word| said.contains(word)),
        "{said}"
    );
}
