//! A kernel: a WGSL module whose entry point can be run.

use super::Gpu;
use super::counts::Meter;
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Span, StorageAccess};
use std::rc::Rc;
use std::sync::Arc;

/// A module that naga has parsed and found valid.
#[derive(Debug)]
pub(crate) struct ShaderModule {
    pub(crate) source: String,
    pub(crate) module: Module,
    pub(crate) info: ModuleInfo,
}

impl ShaderModule {
    /// # Errors
    /// Where naga refuses it, or it needs what the GPU has not.
    pub(crate) fn new(source: &str, features: wgpu::Features) -> Result<Self, String> {
        let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
        let mut capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(Capabilities::SUBGROUP, features.contains(wgpu::Features::SUBGROUP));
        capabilities.set(Capabilities::SHADER_FLOAT16, features.contains(wgpu::Features::SHADER_F16));
        let has_matrices = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        capabilities.set(Capabilities::COOPERATIVE_MATRIX, has_matrices);
        let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
        let info = info.map_err(|error| error.emit_to_string(source))?;
        Ok(Self { source: source.to_owned(), module, info })
    }

    /// The line that a piece of the module comes from.
    pub(crate) fn line(&self, span: Span) -> String {
        let number = span.location(&self.source).line_number;
        let line = (number as usize).checked_sub(1).and_then(|line| self.source.lines().nth(line));
        line.map_or_else(String::new, |line| format!("line {number}: `{}`", line.trim()))
    }
}

/// An entry point as a pipeline has it.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) shader: Arc<ShaderModule>,
    pub(crate) entry_point: usize,
    /// Invocations of a workgroup.
    pub(crate) lanes: usize,
    /// Most invocations of a subgroup, as this kernel was compiled.
    pub(crate) subgroup_size: usize,
    scattered_subgroups: bool,
    pub(crate) wrong_matrices: bool,
    pub(crate) meter: Option<Meter>,
}

impl Kernel {
    /// # Errors
    /// Where it needs more than the GPU has.
    pub(crate) fn new(
        shader: Arc<ShaderModule>,
        name: &str,
        gpu: &Gpu,
        limits: &wgpu::Limits,
        meter: Option<Meter>,
    ) -> Result<Self, String> {
        let entry_point = shader.module.entry_points.iter().position(|entry| entry.name == name);
        let entry_point = entry_point.ok_or_else(|| format!("no entry point {name:?}"))?;
        let [width, 1, 1] = shader.module.entry_points[entry_point].workgroup_size else {
            return Err("workgroups of more than one dimension are not known here".into());
        };
        let variables = || shader.module.global_variables.iter().map(|(_, variable)| variable);
        let buffers = variables().filter(|variable| matches!(variable.space, AddressSpace::Storage { .. })).count();
        let mut layouter = Layouter::default();
        layouter.update(shader.module.to_ctx()).map_err(|error| error.to_string())?;
        let of_workgroup = variables().filter(|variable| variable.space == AddressSpace::WorkGroup);
        let workgroup_bytes: u32 = of_workgroup.map(|variable| layouter[variable.ty].size.next_multiple_of(16)).sum();
        for (what, needs, has) in [
            ("storage buffers", buffers as u32, limits.max_storage_buffers_per_shader_stage),
            ("invocations in a workgroup", width, limits.max_compute_invocations_per_workgroup),
            ("bytes of workgroup memory", workgroup_bytes, limits.max_compute_workgroup_storage_size),
        ] {
            if needs > has {
                return Err(format!("{name}: {needs} {what}, the GPU has {has}"));
            }
        }
        // A compiler chooses by what it sees.
        let hash = shader.source.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        Ok(Self {
            shader,
            entry_point,
            lanes: width as usize,
            subgroup_size: gpu.subgroup_sizes[hash % gpu.subgroup_sizes.len()] as usize,
            scattered_subgroups: gpu.scattered_subgroups,
            wrong_matrices: gpu.wrong_matrices,
            meter,
        })
    }

    /// The invocations of each subgroup.
    pub(crate) fn subgroups(&self) -> Vec<Rc<[usize]>> {
        let count = self.lanes.div_ceil(self.subgroup_size);
        let members = |subgroup: usize| match self.scattered_subgroups {
            true => (subgroup..self.lanes).step_by(count).collect(),
            false => (subgroup * self.subgroup_size..self.lanes.min((subgroup + 1) * self.subgroup_size)).collect(),
        };
        (0..count).map(members).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.shader.module.entry_points[self.entry_point].name
    }

    /// The name of the buffer that is bound by this number, and whether the kernel may write it.
    pub(crate) fn variable_at(&self, binding: u32) -> Result<(String, bool), String> {
        let mut variables = self.shader.module.global_variables.iter().map(|(_, variable)| variable);
        let bound = variables.find(|variable| variable.binding.as_ref().is_some_and(|at| at.binding == binding));
        match bound.map(|variable| (&variable.name, variable.space)) {
            Some((name, AddressSpace::Storage { access })) => {
                Ok((name.clone().unwrap_or_default(), access.contains(StorageAccess::STORE)))
            }
            _ => Err(format!("{}: no storage buffer has binding {binding}", self.name())),
        }
    }
}
