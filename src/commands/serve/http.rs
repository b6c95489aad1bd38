//! Connections: accepted, limited in number and time, and ended without cutting an answer.

use std::io;
use std::net::TcpListener as StdListener;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::Server;
use crate::commands::Interrupted;
use crate::output::say;

/// How long a client may take to send the head of a request, or to begin the next one.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what is sent to it.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// How long the end waits for clients that are in the middle of a request, or of an answer that is complete.
const LAST_TIME: Duration = Duration::from_secs(5);
/// The most connections, if the system allows as many.
const MOST_CONNECTIONS: usize = 10_000;
/// How long to wait before another connection if the system has none to give, and before another look at the end.
const PAUSE: Duration = Duration::from_millis(100);

/// A value as JSON.
pub fn json_text(value: &impl Serialize) -> String {
    let mut text = vec![];
    // Writing to memory does not fail, and records have JSON.
    let _ = gpt2::json::write(&mut text, value);
    String::from_utf8(text).unwrap_or_default()
}

/// A response of JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(json_text(value)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers requests until a signal comes, and then until those under way are answered. Calls `ready` when clients and
/// signals may come.
pub async fn serve(listener: StdListener, router: Router, server: &Server, ready: impl FnOnce()) -> Result<()> {
    let listener = TcpListener::from_std(listener).context("cannot listen")?;
    let most = most_connections();
    let (places, graceful) = (Arc::new(Semaphore::new(most)), GracefulShutdown::new());
    let mut stop = pin!(end()?);
    ready();
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = &mut stop => break,
            () = server.jobs.closed() => bail!("the batch has ended"),
        };
        match connection {
            Ok((connection, _)) => {
                let connection = answer(connection, router.clone());
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    // A connection that breaks is the client's affair.
                    let _ = connection.await;
                    drop(place);
                });
            }
            // Such as too many open files. The connection waits.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    drop(listener);
    if !server.is_quiet {
        say("ending: answering what is under way");
    }
    let mut again = pin!(end()?);
    tokio::select! {
        () = graceful.shutdown() => Ok(()),
        // What is left are clients that still send, or take, nothing.
        () = quiet(server) => Ok(()),
        () = &mut again => Err(Interrupted.into()),
    }
}

/// Returns when no request has run for a while.
async fn quiet(server: &Server) {
    let mut since = Instant::now();
    while since.elapsed() < LAST_TIME {
        tokio::time::sleep(PAUSE).await;
        if !server.is_idle() {
            since = Instant::now();
        }
    }
}

/// A connection whose writing is limited in time.
type Io = TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>;

/// The protocol on a connection.
fn answer(connection: TcpStream, router: Router) -> http1::Connection<Io, TowerToHyperService<Router>> {
    // Parts of a stream are sent at once.
    let _ = connection.set_nodelay(true);
    let mut connection = TimeoutStream::new(connection);
    connection.set_write_timeout(Some(WRITE_TIME));
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    protocol.serve_connection(TokioIo::new(Box::pin(connection)), TowerToHyperService::new(router))
}

/// How many connections there may be: each takes a file.
fn most_connections() -> usize {
    /// Files that are open anyway.
    const OTHERS: u64 = 64;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(files.saturating_sub(OTHERS)).unwrap_or(usize::MAX).clamp(1, MOST_CONNECTIONS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        MOST_CONNECTIONS.min(256 - OTHERS as usize)
    }
}

/// Waits for what ends a server, which is caught from the first moment on: Ctrl-C, or what the system sends before it kills.
fn end() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let (mut interrupt, mut terminate) = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    #[cfg(windows)]
    let (mut interrupt, mut terminate) = {
        use tokio::signal::windows::{ctrl_c, ctrl_close};
        (ctrl_c()?, ctrl_close()?)
    };
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
