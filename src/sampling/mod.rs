//! Sampling parameters and the host sampler.
