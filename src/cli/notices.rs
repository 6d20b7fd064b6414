//! What a command says about itself on stderr, beside its answer.

use bindery::backend::OpenDevice;
use std::fmt::Display;
use std::sync::Once;

/// The form in which it is said.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notices {
    /// Lines for people.
    Lines,
    /// Events of the log, once it is installed.
    Events,
}

impl Notices {
    /// Says what should be looked at.
    pub(super) fn warn(self, text: impl Display) {
        match self {
            Self::Lines => eprintln!("warning: {text}"),
            Self::Events => tracing::warn!("{text}"),
        }
    }

    /// Says what is good to know.
    pub(super) fn info(self, text: impl Display) {
        match self {
            Self::Lines => eprintln!("{text}"),
            Self::Events => tracing::info!("{text}"),
        }
    }

    /// Warns if a device is the processor and the user has not named it: once, however often it is opened.
    pub(super) fn warn_of_software(self, named: Option<&str>, device: &OpenDevice) {
        static SAID: Once = Once::new();
        if named.is_none() && device.backend().memory().is_software {
            SAID.call_once(|| {
                self.warn(
                    "no usable GPU found; running on a software adapter (the CPU), which is slow: see `bindery devices`",
                );
            });
        }
    }
}
