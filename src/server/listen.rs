//! Connections: their limits, and how they end.

use super::{App, EngineState};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;

/// How long to wait when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long answers that are cut off may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Serves until `interrupt` comes or the engine ends; then takes no more connections, and gives those there are
/// `--shutdown-timeout` to end, or until `interrupt` comes again. Returns how the engine was.
pub async fn serve<I: Future<Output = ()>>(
    listener: TcpListener,
    app: Arc<App>,
    router: Router,
    interrupt: impl Fn() -> I,
) -> EngineState {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(app.config.read_timeout)
        .max_header_size(app.config.max_header_bytes);
    let open = GracefulShutdown::new();
    let mut shutdown = Box::pin(interrupt());
    let state = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Tokens are small, and wanted at once.
                    let _ = stream.set_nodelay(true);
                    let mut stream = TimeoutStream::new(stream);
                    stream.set_write_timeout(Some(app.config.write_timeout));
                    let service = TowerToHyperService::new(router.clone());
                    let connection = open.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut shutdown => break EngineState::Stopped,
            state = app.engine.ended() => break state,
        }
    };
    drop(listener);
    app.closing.send_replace(true);
    let (connections, wait_s) = (open.count(), app.config.shutdown_timeout.as_secs());
    tracing::info!(connections, wait_s, "shutting down; an interrupt ends it at once");
    let mut closed = Box::pin(open.shutdown());
    let cut_off = tokio::select! {
        () = &mut closed => None,
        () = tokio::time::sleep(app.config.shutdown_timeout) => Some("they took longer than the shutdown timeout"),
        () = interrupt() => Some("interrupted"),
    };
    app.engine.stop();
    if let Some(why) = cut_off {
        tracing::warn!("requests are cut off: {why}");
        // Streams learn of it from the engine, and tell their clients.
        let _ = tokio::time::timeout(LAST_WORDS, closed).await;
    }
    state
}
