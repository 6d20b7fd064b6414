//! placeholder
use super::{Setup, Suite, Workload};
/// A page.
pub fn html(_workload: &Workload, _setup: &Setup, _suite: &Suite) -> String {
    String::new()
}
