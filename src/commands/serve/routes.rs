//! What each address answers, and to whom.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::Server;
use super::answer::Answer;
use super::fault::Fault;
use super::http::json;
use super::request;
use crate::output::html;
use crate::output::openai::{DetokenizeRecord, ModelsRecord, TokenizeRecord, TokenizerInfoRecord};

/// The largest body, in bytes: 2048 prompts of a full context, as ids.
const LARGEST_BODY: usize = 16 << 20;
/// How long a client may take to send one.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Larger bodies share room of their own, so that many at once do not fill the memory.
const SMALL_BODY: usize = 64 << 10;

/// Everything that is served.
pub fn router(server: &Arc<Server>) -> Router {
    let missing = |method: Method, uri: Uri| async move {
        let path = uri.path();
        let message = match path {
            "/v1/chat/completions" => "GPT-2 does not chat: use POST /v1/completions".to_owned(),
            _ => format!("there is no {method} {path}: completions are POST /v1/completions"),
        };
        Fault::new(StatusCode::NOT_FOUND, message)
    };
    let other_method = |method: Method, uri: Uri| async move {
        Fault::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
    };
    Router::new()
        .route("/", get(page))
        .route("/health", get(|| async { json(StatusCode::OK, &serde_json::json!({"status": "ok"})) }))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/completions", post(completions))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/tokenizer_info", get(tokenizer_info))
        .fallback(missing)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(Arc::clone(server), guard))
        .with_state(Arc::clone(server))
}

/// Lets through who may ask, and counts.
async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // Only what is served, so that others cannot fill the memory with names.
    let path = path.as_deref().and_then(|path| COUNTED.into_iter().find(|counted| path.starts_with(counted)));
    let response = match check(&server, &request) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    };
    server.metrics.request(path.unwrap_or("other"), response.status().as_u16());
    response
}

/// Addresses by which requests are counted.
const COUNTED: [&str; 7] =
    ["/health", "/metrics", "/v1/models", "/v1/completions", "/tokenizer_info", "/tokenize", "/detokenize"];

fn check(server: &Server, request: &Request) -> Result<(), Fault> {
    let headers = request.headers();
    let forbidden = |message: &str| Err(Fault::new(StatusCode::FORBIDDEN, message));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if server.is_local && !host.is_none_or(is_local) {
        // Else a page elsewhere could reach this machine under a name of its own.
        return forbidden("this server answers only to addresses and to localhost; --host NAME serves others");
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        if origin.map(|(_, origin)| origin) != host {
            return forbidden("pages of other sites may not ask this server");
        }
    }
    let is_open = matches!(request.uri().path(), "/" | "/health");
    match &server.key {
        Some(key) if !is_open && !has_key(headers, key) => {
            let message = "the key is missing or wrong: send `Authorization: Bearer KEY`";
            Err(Fault::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
        }
        _ => Ok(()),
    }
}

/// Whether a host is an address or this machine's own name.
fn is_local(host: &str) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Compares in a time that tells nothing about the key, not even its length.
fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")).map(|(_, given)| given);
    Sha256::digest(given.unwrap_or_default()).ct_eq(&Sha256::digest(key)).into()
}

async fn page() -> Response {
    let mut response = Response::new(Body::from(html::serve::page()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let mut response = Response::new(Body::from(server.metrics.text()));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn models(State(server): State<Arc<Server>>) -> Response {
    json(StatusCode::OK, &ModelsRecord { object: "list", data: [server.model()] })
}

async fn model(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Result<Response, Fault> {
    server.check_model(&id)?;
    Ok(json(StatusCode::OK, &server.model()))
}

async fn completions(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Fault> {
    let deadline = Instant::now() + server.timeout;
    let body = body(&server, request).await?;
    let asked = blocking(&server, move |server| request::read(&body, server)).await?;
    let place = server.place(asked.prompts.len())?;
    let stream = asked.stream;
    let answer = Answer::begin(server, asked, place, deadline).await?;
    if stream { Ok(answer.stream()) } else { answer.whole().await }
}

#[derive(Deserialize)]
struct Text {
    prompt: String,
    #[serde(default)]
    add_special_tokens: bool,
}

async fn tokenize(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Fault> {
    let body = body(&server, request).await?;
    let tokens = blocking(&server, move |server| {
        let Text { prompt, add_special_tokens } = parsed(&body)?;
        let pipeline = &server.pipeline;
        Ok(if add_special_tokens { pipeline.prompt_ids(&prompt, true) } else { pipeline.ids(&prompt, true) }?)
    });
    let tokens = tokens.await?;
    let max_model_len = server.pipeline.model.config().n_positions;
    Ok(json(StatusCode::OK, &TokenizeRecord { count: tokens.len(), tokens, max_model_len }))
}

#[derive(Deserialize)]
struct Ids {
    tokens: Vec<u32>,
}

async fn detokenize(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Fault> {
    let body = body(&server, request).await?;
    let prompt = blocking(&server, move |server| {
        let Ids { tokens } = parsed(&body)?;
        server.pipeline.check_ids(&tokens)?;
        Ok(server.pipeline.tokenizer()?.decode(&tokens, false)?)
    });
    Ok(json(StatusCode::OK, &DetokenizeRecord { prompt: prompt.await? }))
}

async fn tokenizer_info(State(server): State<Arc<Server>>) -> Response {
    let pipeline = &server.pipeline;
    let text = |id: Option<u32>| pipeline.token_text(id?);
    let record = TokenizerInfoRecord {
        eos_token: text(pipeline.eos_token_id.first().copied()),
        bos_token: text(pipeline.start_token()),
        pad_token: None,
        chat_template: None,
    };
    json(StatusCode::OK, &record)
}

/// A body of the given shape.
fn parsed<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::request(format!("the body is {}", gpt2::json::fault(body, &error))))
}

/// Reads a body of limited size, in limited time.
async fn body(server: &Server, request: Request) -> Result<axum::body::Bytes, Fault> {
    let too_large = || {
        let message = format!("the body is larger than {LARGEST_BODY} bytes");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(LARGEST_BODY);
    if length > LARGEST_BODY {
        return Err(too_large());
    }
    let read = async {
        let _room = match length {
            ..=SMALL_BODY => None,
            length => server.bodies.acquire_many((length >> 10) as u32).await.ok(),
        };
        to_bytes(request.into_body(), LARGEST_BODY).await
    };
    match timeout(BODY_TIME, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error))
            if std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit")) =>
        {
            Err(too_large())
        }
        Ok(Err(_)) => Err(Fault::request("the body breaks off")),
        Err(_) => Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// Runs what takes a while beside the connections.
async fn blocking<T: Send + 'static>(
    server: &Arc<Server>,
    run: impl FnOnce(&Server) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let server = Arc::clone(server);
    spawn_blocking(move || run(&server)).await.unwrap_or_else(|_| Err(Fault::model()))
}
