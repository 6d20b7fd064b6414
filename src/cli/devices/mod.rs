//! `bindery devices`: what there is to run on.

mod cuda;

use super::table::table;
use super::units::{bytes, utc_date};
use anyhow::Result;
use bindery::backend::webgpu::{AdapterSummary, CachedTuning, NO_ADAPTER, Tuning, Variant, adapters, cached_tunings};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
`--device` of the other commands takes the index or a part of the name. Without it they take the first of: discrete GPU,
integrated GPU, virtual GPU, software adapter. \"kernels\" are the variants that run there, the preferred one first;
below the table, what was measured for which shapes of models (see --retune of the other commands), or the rule. CUDA
devices are numbered by themselves, and used with --backend cuda.

Examples:
  bindery devices
  bindery devices --json | jq '.[].name'";

/// List the adapters and CUDA devices: driver, features, limits, and which kernels would run
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DevicesArgs {
    /// As a JSON list, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &DevicesArgs) -> Result<ExitCode> {
    let adapters = adapters();
    let tunings = cached_tunings();
    let cuda = cuda::list();
    if args.json {
        let list: Vec<Value> = adapters.iter().map(|adapter| as_json(adapter, &tunings)).chain(cuda.json).collect();
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if adapters.is_empty() && cuda.json.is_empty() {
        anyhow::bail!("{NO_ADAPTER} ({})", cuda.text);
    }
    if adapters.is_empty() {
        writeln!(std::io::stdout(), "WebGPU: {NO_ADAPTER}\n")?;
    } else {
        write_adapters(&adapters, &tunings)?;
    }
    writeln!(std::io::stdout(), "{}", cuda.text)?;
    Ok(ExitCode::SUCCESS)
}

fn write_adapters(adapters: &[AdapterSummary], tunings: &[CachedTuning]) -> Result<()> {
    let head = [
        "index", "name", "vendor", "type", "API", "subgroup", "f16", "matrices", "binding", "buffer", "memory",
        "kernels",
    ];
    let rows: Vec<Vec<String>> = adapters.iter().map(row).collect();
    writeln!(std::io::stdout(), "{}\n", table(&head, &rows))?;
    for adapter in adapters {
        let cannot = adapter.unusable.as_ref().map(|why| format!("; cannot be used: {why}")).unwrap_or_default();
        writeln!(std::io::stdout(), "{}: driver {}{cannot}", adapter.index, adapter.driver)?;
        for line in choices(adapter, tunings) {
            writeln!(std::io::stdout(), "   {line}")?;
        }
    }
    writeln!(std::io::stdout())?;
    Ok(())
}

fn row(adapter: &AdapterSummary) -> Vec<String> {
    vec![
        adapter.index.to_string(),
        adapter.name.clone(),
        format!("{:#06x}", adapter.vendor),
        adapter.device_type.clone(),
        adapter.api.clone(),
        match adapter.subgroup_sizes {
            None => "none".into(),
            Some((min, max)) if min == max => min.to_string(),
            Some((min, max)) => format!("{min} to {max}"),
        },
        if adapter.shader_f16 { "yes" } else { "no" }.into(),
        adapter.matrix_size.map_or_else(|| "none".into(), |size| format!("{size} x {size}")),
        bytes(adapter.max_binding_bytes),
        bytes(adapter.max_buffer_bytes),
        adapter.memory_bytes.map_or_else(|| "unknown".into(), bytes),
        match adapter.unusable {
            Some(_) => "none".into(),
            None => variants(adapter).join(" "),
        },
    ]
}

fn variants(adapter: &AdapterSummary) -> Vec<String> {
    adapter.variants.iter().map(ToString::to_string).collect()
}

fn tunings_of<'a>(adapter: &'a AdapterSummary, all: &'a [CachedTuning]) -> impl Iterator<Item = &'a CachedTuning> {
    all.iter().filter(|tuning| tuning.adapter == adapter.name && tuning.driver == adapter.driver)
}

/// Which kernels run, and why: by rule, then by what was measured.
fn choices(adapter: &AdapterSummary, tunings: &[CachedTuning]) -> Vec<String> {
    if adapter.unusable.is_some() {
        return Vec::new();
    }
    let rule = match adapter.is_software {
        true => "nothing is measured unless --retune asks",
        false => "until a model's first start, which measures them",
    };
    let variant = adapter.variants[0];
    let why = match variant {
        Variant::Cpu => "this is a software adapter",
        Variant::Matrix => "it has cooperative matrices",
        Variant::Subgroup => "it has subgroups of 8 or more",
        Variant::Plain => "it has no subgroups of 8 or more",
    };
    let mut lines = vec![format!("{variant} kernels because {why}; {}: {rule}", Tuning::by_rule(variant))];
    for found in tunings_of(adapter, tunings) {
        let (shapes, date) = (&found.shapes, utc_date(found.measured_at));
        lines.push(format!("{} kernels, {}: measured {date} for {shapes}", found.variant, found.tuning));
        lines.extend(found.left_out.iter().cloned());
    }
    lines
}

fn as_json(adapter: &AdapterSummary, tunings: &[CachedTuning]) -> Value {
    let tunings = tunings_of(adapter, tunings).map(|found| {
        json!({
            "shapes": found.shapes, "variant": found.variant.to_string(), "tuning": found.tuning,
            "measured_at": found.measured_at, "trials": found.trials, "left_out": found.left_out,
        })
    });
    json!({
        "backend": "webgpu",
        "index": adapter.index,
        "name": adapter.name,
        "vendor": adapter.vendor,
        "type": adapter.device_type,
        "api": adapter.api,
        "driver": adapter.driver,
        "subgroup_sizes": adapter.subgroup_sizes.map(|(min, max)| [min, max]),
        "shader_f16": adapter.shader_f16,
        "matrix_size": adapter.matrix_size,
        "max_binding_bytes": adapter.max_binding_bytes,
        "max_buffer_bytes": adapter.max_buffer_bytes,
        "memory_bytes": adapter.memory_bytes,
        "is_software": adapter.is_software,
        "variants": variants(adapter),
        "unusable": adapter.unusable,
        "tunings": tunings.collect::<Vec<_>>(),
    })
}
