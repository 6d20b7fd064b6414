//! A few kernels at the shapes of SmolLM2-135M, by the device's clock where it has one.
//!
//! `cargo bench --bench kernels`; BINDERY_BACKEND is webgpu (the default) or, with `--features cuda`, cuda, and
//! BINDERY_DEVICE names another device than the best one. `bindery bench kernels` measures all of them, against what the
//! device reaches at best.

use bindery::backend::kernel_bench::{ModelShape, Selection, programs};
use bindery::backend::{BackendKind, DeviceChoice, OpenDevice, WeightFormat};
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;

fn kernels(criterion: &mut Criterion) {
    let [backend, device] = ["BINDERY_BACKEND", "BINDERY_DEVICE"].map(|name| std::env::var(name).ok());
    let backend = backend.map_or(BackendKind::default(), |name| name.parse().expect("BINDERY_BACKEND"));
    let choice = DeviceChoice { backend, device: device.as_deref(), ..DeviceChoice::default() };
    let device = OpenDevice::open(choice).expect("a device; `bindery devices` lists them");
    let selection = Selection {
        formats: vec![WeightFormat::Q4_1],
        rows: vec![1, 64],
        decode: vec![(1, 1024), (16, 128)],
        prefill: vec![(0, 128)],
        cache_bytes: 16 << 20,
        ..Selection::default()
    };
    let shape = ModelShape::known().remove(0);
    for program in programs(&shape, &selection) {
        let mut backend = device.backend();
        let description = backend.description();
        let clock = program.prepare(&mut *backend).expect("it fits");
        let mut group = criterion.benchmark_group(format!("{} on {description}", program.name()));
        group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        for step in &program.steps {
            group.bench_function(&step.label, |bencher| {
                bencher.iter_custom(|times| {
                    let mut run = |_| program.run(step, clock, &mut *backend).expect("the device works").seconds;
                    Duration::from_secs_f64((0..times).map(&mut run).sum())
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
