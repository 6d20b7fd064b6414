//! Timestamps around the dispatches of a step.

use super::super::{BackendError, DispatchTime, ForwardProfile, ProfileClock};
use super::GpuDevice;
use super::plan::{Dispatch, Plan};
use super::read_back::ReadBack;
use super::step_words::StepCounts;
use std::collections::VecDeque;

/// Timestamps of one query set.
const SET_QUERIES: u32 = wgpu::QUERY_SET_MAX_QUERIES;
const TIMESTAMP_BYTES: u64 = wgpu::QUERY_SIZE as u64;

/// Features for each [`ProfileClock`], where an adapter has them.
pub(super) const IN_PASS: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
const PASS_PER_DISPATCH: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY;

impl GpuDevice {
    /// How dispatches are timed on this device.
    pub fn profile_clock(&self) -> ProfileClock {
        match self.device.features() {
            features if features.contains(IN_PASS) => ProfileClock::InPass,
            features if features.contains(PASS_PER_DISPATCH) => ProfileClock::PassPerDispatch,
            _ => ProfileClock::None,
        }
    }
}

/// Records steps with timestamps, and reads them back.
pub(super) struct Profiler {
    clock: ProfileClock,
    /// Nanoseconds of one tick.
    period_ns: f64,
    /// Two queries for each dispatch, in as many sets as it takes.
    sets: Vec<QuerySet>,
    /// Submitted steps whose times were not read yet, oldest first.
    pending: VecDeque<Pending>,
    last: Option<ForwardProfile>,
}

struct QuerySet {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

struct Pending {
    kernels: Vec<&'static str>,
    timestamps: Option<ReadBack>,
}

impl Profiler {
    pub(super) fn new(gpu: &GpuDevice) -> Self {
        Self {
            clock: gpu.profile_clock(),
            period_ns: f64::from(gpu.queue.get_timestamp_period()),
            sets: Vec::new(),
            pending: VecDeque::new(),
            last: None,
        }
    }

    pub(super) fn clock(&self) -> ProfileClock {
        self.clock
    }

    /// Records a step, which is one submit here, however long it takes.
    pub(super) fn encode(&mut self, gpu: &GpuDevice, plan: &Plan, counts: &StepCounts) -> wgpu::CommandEncoder {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") });
        let dispatches: Vec<Dispatch<'_>> = plan.dispatches(counts).collect();
        let kernels = dispatches.iter().map(Dispatch::kernel).collect();
        if self.clock == ProfileClock::None || dispatches.is_empty() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            dispatches.iter().for_each(|dispatch| dispatch.encode(&mut pass));
            drop(pass);
            self.pending.push_back(Pending { kernels, timestamps: None });
            return encoder;
        }
        let queries = 2 * dispatches.len() as u32;
        while self.sets.len() < queries.div_ceil(SET_QUERIES) as usize {
            self.sets.push(QuerySet::new(gpu));
        }
        let set = |query: u32| &self.sets[(query / SET_QUERIES) as usize].queries;
        let begins = (0..queries).step_by(2).zip(&dispatches);
        if self.clock == ProfileClock::InPass {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for (query, dispatch) in begins {
                pass.write_timestamp(set(query), query % SET_QUERIES);
                dispatch.encode(&mut pass);
                pass.write_timestamp(set(query), query % SET_QUERIES + 1);
            }
        } else {
            for (query, dispatch) in begins {
                let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                    query_set: set(query),
                    beginning_of_pass_write_index: Some(query % SET_QUERIES),
                    end_of_pass_write_index: Some(query % SET_QUERIES + 1),
                });
                let descriptor = wgpu::ComputePassDescriptor { label: Some(dispatch.kernel()), timestamp_writes };
                dispatch.encode(&mut encoder.begin_compute_pass(&descriptor));
            }
        }
        let mut timestamps = ReadBack::default();
        timestamps.begin(gpu, u64::from(queries) * TIMESTAMP_BYTES);
        for (first, set) in (0..queries).step_by(SET_QUERIES as usize).zip(&self.sets) {
            let count = SET_QUERIES.min(queries - first);
            encoder.resolve_query_set(&set.queries, 0..count, &set.resolved, 0);
            timestamps.copy(&mut encoder, &set.resolved, 0, u64::from(count) * TIMESTAMP_BYTES);
        }
        self.pending.push_back(Pending { kernels, timestamps: Some(timestamps) });
        encoder
    }

    /// Reads the times of the oldest step that was recorded, which is that submission; the device is done with it.
    pub(super) fn finish(&mut self, gpu: &GpuDevice, submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        let Some(Pending { kernels, timestamps }) = self.pending.pop_front() else { return Ok(()) };
        let mut ticks: Vec<u64> = vec![0; 2 * kernels.len()];
        if let Some(timestamps) = timestamps {
            timestamps.finish(gpu, submission, |bytes| ticks = bytemuck::pod_collect_to_vec(bytes))?;
        }
        let nanoseconds = |ticks: u64| (ticks as f64 * self.period_ns) as u64;
        let times = kernels.into_iter().zip(ticks.chunks_exact(2));
        let dispatches = times.map(|(kernel, ticks)| DispatchTime {
            kernel,
            begin_ns: nanoseconds(ticks[0]),
            end_ns: nanoseconds(ticks[1]),
        });
        self.last = Some(ForwardProfile { dispatches: dispatches.collect() });
        Ok(())
    }

    /// The times of the last step.
    pub(super) fn take(&mut self) -> Option<ForwardProfile> {
        self.last.take()
    }
}

impl QuerySet {
    fn new(gpu: &GpuDevice) -> Self {
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: SET_QUERIES,
        });
        let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: u64::from(SET_QUERIES) * TIMESTAMP_BYTES,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Self { queries, resolved }
    }
}
