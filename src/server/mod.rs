//! The OpenAI-compatible HTTP server.
//!
//! | file | what it is |
//! |---|---|
//! | `engine`, `worker`, `snapshot` | the engine's thread: submissions in, events out, and observers of its steps |
//! | `app`, `config` | what the routes share, and what the operator decides |
//! | `router`, `gate`, `body`, `error` | paths, keys and request ids, JSON in, errors out |
//! | `generate`, `stream` | completions and chat, in one piece and in pieces |
//! | `text_routes`, `status_routes` | tokens and text; health, models, sizes |
//! | `metrics`, `profile_metrics`, `request_times`, `kv_events` | observers: Prometheus' numbers, events for routers |
//! | `ui` | the live block map: a page, and an observer that feeds it |
//! | `listen` | connections, their limits, and how they end |

mod app;
mod body;
mod command;
mod config;
mod cors;
mod engine;
mod error;
mod gate;
mod generate;
mod kv_events;
mod listen;
mod metrics;
mod profile_metrics;
mod registered;
mod request_times;
mod router;
mod snapshot;
mod status_routes;
mod stream;
mod text_routes;
mod ui;
mod worker;

pub use app::App;
pub use command::{EngineState, Submission};
pub use config::ServerConfig;
pub use cors::{CorsError, CorsPolicy};
pub use engine::{EngineHandle, EventStream};
pub use kv_events::{KvEventObserver, KvEventSource, KvEventsConfig, KvEventsError, publish as publish_kv_events};
pub use listen::serve;
pub use router::router;
pub use snapshot::{Arrival, StepObserver, StepReport, StepSnapshot};
