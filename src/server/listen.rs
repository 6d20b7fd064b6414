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

/// Serves until `shutdown` comes or the engine ends; then takes no more connections, and gives those there are
/// `--shutdown-timeout` to end. Returns how the engine was.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> EngineState {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(app.config.read_timeout)
        .max_header_size(app.config.max_header_bytes);
    let open = GracefulShutdown::new();
    tokio::pin!(shutdown);
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
    tracing::info!(connections = open.count(), "shutting down");
    if tokio::time::timeout(app.config.shutdown_timeout, open.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than the shutdown timeout");
    }
    app.engine.stop();
    state
}
