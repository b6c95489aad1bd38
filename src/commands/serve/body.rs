//! Bodies of requests: of limited size, in limited time, and all together in limited room.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Server;
use super::fault::Fault;

/// The largest body, in bytes: 2048 prompts of a full context, as ids.
const LARGEST: usize = 16 << 20;
/// How long a client may take to send one.
const TIME: Duration = Duration::from_secs(30);
/// Larger bodies share room of their own, so that many at once do not fill the memory.
const SMALL: usize = 64 << 10;
/// The unit of that room, and all of it.
const UNIT: usize = 1 << 10;
const ROOM: usize = 256 << 20;
/// How much is read of a body that is refused, and how long its client may rest.
const IN_VAIN: usize = 4 * LARGEST;
const NO_MORE: Duration = Duration::from_secs(1);

/// The room of large bodies.
pub struct Bodies {
    room: Arc<Semaphore>,
    /// One large body is understood at a time: it takes a while and many times its memory.
    turn: Semaphore,
}

/// A body that has come, with the room that it takes.
pub struct Received {
    bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM / UNIT)), turn: Semaphore::new(1) }
    }

    /// Reads the body of a request.
    pub async fn read(&self, request: Request) -> Result<Received, Fault> {
        let too_large =
            || Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {LARGEST} bytes"));
        let too_many =
            || Fault::new(StatusCode::TOO_MANY_REQUESTS, "too many large requests at a time: try again later");
        let (parts, body) = request.into_parts();
        if length(&parts.headers).is_some_and(|length| length > LARGEST as u64) {
            drain(body);
            return Err(too_large());
        }
        let read = async {
            let (mut parts, mut bytes, mut room) = (body.into_data_stream(), vec![], None);
            while let Some(part) = parts.next().await {
                let part = part.map_err(|_| Fault::request("the body breaks off"))?;
                let length = bytes.len() + part.len();
                if length <= LARGEST && self.take(length, &mut room) {
                    bytes.extend_from_slice(&part);
                    continue;
                }
                drop((bytes, room));
                tokio::spawn(in_vain(parts));
                return Err(if length > LARGEST { too_large() } else { too_many() });
            }
            Ok(Received { bytes: bytes.into(), room })
        };
        timeout(TIME, read)
            .await
            .unwrap_or_else(|_| Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")))
    }

    /// Makes sure that there is room for so many bytes, and returns whether there is.
    fn take(&self, bytes: usize, room: &mut Option<OwnedSemaphorePermit>) -> bool {
        let needed = if bytes > SMALL { bytes.div_ceil(UNIT) } else { 0 };
        let more = needed.saturating_sub(room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        match Arc::clone(&self.room).try_acquire_many_owned(more as u32) {
            Ok(new) => match room {
                Some(room) => room.merge(new),
                None => *room = Some(new),
            },
            Err(_) => return false,
        }
        true
    }
}

impl Received {
    /// Understands it, beside the connections. The room stays with what it was understood as.
    pub async fn understand<T: Send + 'static>(
        self,
        server: &Arc<Server>,
        read: impl FnOnce(&[u8], &Server) -> Result<T, Fault> + Send + 'static,
    ) -> Result<(T, Option<OwnedSemaphorePermit>), Fault> {
        let Self { bytes, room } = self;
        let _turn = if bytes.len() > SMALL { server.bodies.turn.acquire().await.ok() } else { None };
        let server = Arc::clone(server);
        let value = spawn_blocking(move || read(&bytes, &server)).await.unwrap_or_else(|_| Err(Fault::model()))?;
        Ok((value, room))
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Goes on reading what a client sends with a request that is refused, for many read the answer only when they have sent
/// all.
pub fn drain(body: Body) {
    tokio::spawn(in_vain(body.into_data_stream()));
}

async fn in_vain(mut parts: BodyDataStream) {
    let mut left = IN_VAIN;
    while let Ok(Some(Ok(part))) = timeout(NO_MORE, parts.next()).await {
        match left.checked_sub(part.len()) {
            Some(less) => left = less,
            None => return,
        }
    }
}
