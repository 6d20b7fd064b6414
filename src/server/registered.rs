//! Metrics become part of a registry as they are made.

use prometheus::Registry;
use prometheus::core::Collector;

/// The collector, after it was registered.
///
/// # Panics
/// When the name is no valid one, or is taken.
pub(super) fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("the name is valid");
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}
