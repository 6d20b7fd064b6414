//! Every kernel in the languages of the other platforms: SPIR-V for Vulkan, MSL for Metal, HLSL for DirectX 12. No driver
//! is asked; naga, which `wgpu` translates with, must take each of them.
//!
//! Kernels with cooperative matrices go where those are: Vulkan, and Metal for 8 x 8. HLSL has none (naga's writer stops at
//! them), and for 16 x 16 naga writes an MSL type that Metal does not have; no adapter there lists them.
//!
//! Where the variable `BINDERY_HLSL` names a folder, the HLSL stays there, for `cargo xtask dxc` to compile.

use super::reflection::{Reflected, capabilities, for_each_kernel};
use naga::ShaderStage;
use naga::back::{hlsl, msl, spv};
use naga::valid::{ModuleInfo, ValidationFlags, Validator};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The size of the cooperative matrices of a kernel.
fn matrices(Reflected { kernel, .. }: &Reflected) -> Option<u32> {
    [8, 16].into_iter().find(|size| kernel.source().contains(&format!("coop_mat{size}x{size}")))
}

/// A kernel in HLSL, and what its entry point is called there.
fn hlsl(Reflected { kernel, module, .. }: &Reflected, info: &ModuleInfo) -> Result<(String, String), String> {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        immediates_target: Some(hlsl::BindTarget::default()),
        ..hlsl::Options::default()
    };
    let entry = Some((ShaderStage::Compute, kernel.name.to_owned()));
    let pipeline = hlsl::PipelineOptions { entry_point: entry };
    let mut text = String::new();
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    let written = writer.write(module, info, None).map_err(|error| error.to_string())?;
    let name = written.entry_point_names[0].as_ref().map_err(|error| error.to_string())?;
    Ok((text, name.clone()))
}

/// What naga 30 is known to write without an error and DirectX's compiler to refuse.
fn refused_hlsl(text: &str) -> Option<String> {
    let entry = text.split_once("[numthreads(").and_then(|(_, rest)| rest.lines().nth(1)).expect("an entry point");
    if entry.contains("(Invocation inv") {
        let (_, members) = text.split_once("struct Invocation {").expect("the type of the argument");
        let mut members = members.lines().skip(1).take_while(|line| !line.starts_with('}'));
        if let Some(member) = members.find(|line| !line.contains(" : ")) {
            return Some(format!("a built-in value without a semantic: {}", member.trim()));
        }
    }
    let mut zeros = BTreeSet::new();
    let twice = text.lines().find(|line| line.starts_with("ret_ZeroValue") && !zeros.insert(*line));
    twice.map(|line| format!("defined twice: {line}"))
}

#[test]
fn every_kernel_translates_to_spirv_msl_and_hlsl() {
    let folder = std::env::var_os("BINDERY_HLSL").map(PathBuf::from);
    let mut failures = Vec::new();
    let mut count = 0;
    for_each_kernel(|reflected| {
        let Reflected { label, kernel, module, .. } = reflected;
        let mut validator = Validator::new(ValidationFlags::all(), capabilities(kernel));
        let info = validator.validate(module).expect("tested elsewhere");
        let mut note = |language: &str, failed: Option<String>| {
            failures.extend(failed.map(|error| format!("{label} in {language}: {error}")));
        };

        let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
        note("SPIR-V", spv::write_vec(module, &info, &options, None).err().map(|error| error.to_string()));

        if matrices(reflected) != Some(16) {
            let resources =
                msl::EntryPointResources { immediates_buffer: Some(0), sizes_buffer: Some(1), ..Default::default() };
            let options = msl::Options {
                lang_version: (2, 4),
                per_entry_point_map: [(kernel.name.to_owned(), resources)].into(),
                ..msl::Options::default()
            };
            let entry = Some((ShaderStage::Compute, kernel.name.to_owned()));
            let pipeline = msl::PipelineOptions { entry_point: entry, ..msl::PipelineOptions::default() };
            note("MSL", msl::write_string(module, &info, &options, &pipeline).err().map(|error| error.to_string()));
        }
        if matrices(reflected).is_none() {
            let written = hlsl(reflected, &info);
            if let (Ok((text, entry)), Some(folder)) = (&written, &folder) {
                let file = folder.join(format!("{count}.{entry}.hlsl"));
                std::fs::write(file, format!("// {label}\n{text}")).expect("the folder can be written");
                count += 1;
            }
            note("HLSL", written.map_or_else(Some, |(text, _)| refused_hlsl(&text)));
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
