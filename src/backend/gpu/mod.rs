//! What the backends for GPUs have in common: nothing here knows a device.
//!
//! One step's metadata (`step_words`) with its attention cut up (`work_items`, `shared_prefix`), weights as aligned planes
//! (`repack`, `weight_runs`), which ops become one kernel (`fusion`) and what that computes (`folded`), the buffers of a
//! program (`buffers`), the workgroups of a kernel (`grid`), what comes back of a step (`wanted`), compilers on all cores
//! (`side_by_side`), and how peaks are measured (`best_of`).

pub(super) mod best_of;
pub(super) mod buffers;
pub(super) mod folded;
pub(super) mod fusion;
pub(super) mod grid;
pub(super) mod repack;
mod shared_prefix;
pub(super) mod side_by_side;
pub(super) mod step_words;
pub(super) mod wanted;
pub(super) mod weight_runs;
mod work_items;
