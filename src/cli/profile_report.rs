//! What `--profile` found out, as text and as JSON.

use super::table::table;
use bindery::backend::ProfileClock;
use bindery::llm::Profile;
use serde_json::{Value, json};

/// Kernels by the time they took, and where else the steps' time went.
pub(super) fn text(profile: &Profile) -> String {
    let steps = profile.steps.max(1) as f64;
    let has_times = profile.clock != ProfileClock::None;
    let device_s = profile.device_s();
    let ms_per_step = |seconds: f64| format!("{:.3}", 1e3 * seconds / steps);
    let kernels = profile.by_time().into_iter().map(|(kernel, times)| {
        let dispatches = format!("{:.1}", times.dispatches as f64 / steps);
        let mut row = vec![kernel.to_owned(), dispatches];
        if has_times {
            row.push(format!("{:.1}", 1e6 * times.seconds / times.dispatches as f64));
            row.push(ms_per_step(times.seconds));
            row.push(format!("{:.1}", 100.0 * times.seconds / device_s));
        }
        row
    });
    let head = ["kernel", "dispatches/step", "us each", "ms/step", "% of device time"];
    let head = if has_times { &head[..] } else { &head[..2] };
    let mut lines = vec![
        format!("profile of {} steps: {}", profile.steps, profile.clock),
        table(head, &kernels.collect::<Vec<_>>()),
        format!("dispatches: {:.1} a step", profile.dispatches() as f64 / steps),
    ];
    if has_times {
        lines.push(format!(
            "device, ms a step: {} computing, {} idle between dispatches, {} idle between steps",
            ms_per_step(device_s),
            ms_per_step(profile.idle_in_steps_s),
            ms_per_step(profile.idle_between_steps_s),
        ));
    }
    let parts = profile.host.parts().map(|(part, time)| format!("{part} {}", ms_per_step(time.as_secs_f64())));
    lines.push(format!("host, ms a step: {}", parts.join(", ")));
    lines.join("\n")
}

/// The same, all sums in seconds.
pub(super) fn json(profile: &Profile) -> Value {
    let kernels = profile
        .by_time()
        .into_iter()
        .map(|(kernel, times)| json!({ "kernel": kernel, "dispatches": times.dispatches, "seconds": times.seconds }));
    let host = profile.host.parts().map(|(part, time)| (part.to_owned(), json!(time.as_secs_f64())));
    json!({
        "clock": profile.clock.to_string(),
        "steps": profile.steps,
        "dispatches": profile.dispatches(),
        "device_seconds": profile.device_s(),
        "device_idle_in_steps_seconds": profile.idle_in_steps_s,
        "device_idle_between_steps_seconds": profile.idle_between_steps_s,
        "host_seconds": serde_json::Map::from_iter(host),
        "kernels": kernels.collect::<Vec<_>>(),
    })
}
