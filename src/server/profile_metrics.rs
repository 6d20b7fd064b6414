//! What `--profile` adds to `/metrics`: seconds on the device by kernel, and on the host by part of a step. Without it
//! there is no sample of these.

use super::registered::registered;
use crate::llm::Profile;
use prometheus::{CounterVec, IntCounterVec, Opts, Registry};

pub(super) struct ProfileMetrics {
    kernel_seconds: CounterVec,
    kernel_dispatches: IntCounterVec,
    idle_seconds: CounterVec,
    host_seconds: CounterVec,
}

impl ProfileMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let seconds = |name: &str, help: &str, label: &str| {
            registered(registry, CounterVec::new(Opts::new(name, help), &[label]))
        };
        let dispatches = Opts::new("bindery_kernel_dispatches_total", "Dispatches of a kernel, with --profile.");
        Self {
            kernel_seconds: seconds(
                "bindery_kernel_seconds_total",
                "Seconds that a kernel took on the device, with --profile.",
                "kernel",
            ),
            kernel_dispatches: registered(registry, IntCounterVec::new(dispatches, &["kernel"])),
            idle_seconds: seconds(
                "bindery_device_idle_seconds_total",
                "Seconds that the device waited though there was work, within steps and between them, with --profile.",
                "where",
            ),
            host_seconds: seconds(
                "bindery_step_host_seconds_total",
                "Seconds that the parts of a step took on the host, with --profile.",
                "part",
            ),
        }
    }

    /// Raises the counters to what `profile` sums up to.
    pub(super) fn set(&self, profile: &Profile) {
        let raise = |counters: &CounterVec, label: &str, seconds: f64| {
            let counter = counters.with_label_values(&[label]);
            counter.inc_by((seconds - counter.get()).max(0.0));
        };
        for (kernel, times) in &profile.kernels {
            raise(&self.kernel_seconds, kernel, times.seconds);
            let dispatches = self.kernel_dispatches.with_label_values(&[kernel]);
            dispatches.inc_by(times.dispatches - dispatches.get());
        }
        raise(&self.idle_seconds, "step", profile.idle_in_steps_s);
        raise(&self.idle_seconds, "between steps", profile.idle_between_steps_s);
        for (part, time) in profile.host.parts() {
            raise(&self.host_seconds, part, time.as_secs_f64());
        }
    }
}
