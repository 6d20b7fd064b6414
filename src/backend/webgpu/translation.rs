//! Every kernel in the languages of the other platforms: SPIR-V for Vulkan, MSL for Metal, HLSL for DirectX 12. No driver
//! is asked; naga, which `wgpu` translates with, must take each of them.
//!
//! Kernels with cooperative matrices go where those are: Vulkan, and Metal for 8 x 8. HLSL has none (naga's writer stops at
//! them), and for 16 x 16 naga writes an MSL type that Metal does not have; no adapter there lists them.

use super::reflection::{Reflected, capabilities, for_each_kernel};
use naga::ShaderStage;
use naga::back::{hlsl, msl, spv};
use naga::valid::{ValidationFlags, Validator};

#[test]
fn every_kernel_translates_to_spirv_msl_and_hlsl() {
    let mut failures = Vec::new();
    for_each_kernel(|Reflected { label, kernel, module, .. }| {
        let mut validator = Validator::new(ValidationFlags::all(), capabilities(kernel));
        let info = validator.validate(module).expect("tested elsewhere");
        let matrices = [8, 16].into_iter().find(|size| kernel.source().contains(&format!("coop_mat{size}x{size}")));
        let entry = Some((ShaderStage::Compute, kernel.name.to_owned()));
        let mut note = |language: &str, failed: Option<String>| {
            failures.extend(failed.map(|error| format!("{label} in {language}: {error}")));
        };

        let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
        note("SPIR-V", spv::write_vec(module, &info, &options, None).err().map(|error| error.to_string()));

        if matrices != Some(16) {
            let resources =
                msl::EntryPointResources { immediates_buffer: Some(0), sizes_buffer: Some(1), ..Default::default() };
            let options = msl::Options {
                lang_version: (2, 4),
                per_entry_point_map: [(kernel.name.to_owned(), resources)].into(),
                ..msl::Options::default()
            };
            let pipeline = msl::PipelineOptions { entry_point: entry.clone(), ..msl::PipelineOptions::default() };
            note("MSL", msl::write_string(module, &info, &options, &pipeline).err().map(|error| error.to_string()));
        }
        if matrices.is_none() {
            let options = hlsl::Options {
                shader_model: hlsl::ShaderModel::V6_0,
                immediates_target: Some(hlsl::BindTarget::default()),
                ..hlsl::Options::default()
            };
            let pipeline = hlsl::PipelineOptions { entry_point: entry };
            let mut text = String::new();
            let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, &info, None).map(drop);
            note("HLSL", written.err().map(|error| error.to_string()));
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
