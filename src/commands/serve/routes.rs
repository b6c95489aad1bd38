//! What each address answers, and to whom.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::Server;
use super::answer::Answer;
use super::body::drain;
use super::fault::Fault;
use super::http::json;
use super::request;
use crate::output::html;
use crate::output::openai::{DetokenizeRecord, ModelsRecord, TokenizeRecord, TokenizerInfoRecord};

/// Everything that is served.
pub fn router(server: &Arc<Server>) -> Router {
    let missing = |request: Request| async move {
        let (parts, body) = request.into_parts();
        drain(body);
        let (method, path) = (parts.method, parts.uri.path());
        let message = match path {
            "/v1/chat/completions" => "GPT-2 does not chat: use POST /v1/completions".to_owned(),
            _ => format!("there is no {method} {path}: completions are POST /v1/completions"),
        };
        Fault::new(StatusCode::NOT_FOUND, message)
    };
    let other_method = |request: Request| async move {
        let (parts, body) = request.into_parts();
        drain(body);
        let message = format!("{} does not take {}", parts.uri.path(), parts.method);
        Fault::new(StatusCode::METHOD_NOT_ALLOWED, message)
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
        Err(fault) => {
            drain(request.into_body());
            fault.into_response()
        }
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
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
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

async fn model(State(server): State<Arc<Server>>, id: Result<Path<String>, PathRejection>) -> Result<Response, Fault> {
    let Path(id) = id.map_err(|_| Fault::request("the name of the model is not UTF-8"))?;
    server.check_model(&id)?;
    Ok(json(StatusCode::OK, &server.model()))
}

async fn completions(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Fault> {
    let deadline = Instant::now() + server.timeout;
    let body = server.bodies.read(request).await?;
    let (asked, room) = body.understand(&server, request::read).await?;
    let place = server.place(asked.prompts.len(), room)?;
    let stream = asked.stream;
    let answer = Answer::begin(server, asked, place, deadline).await?;
    if stream { Ok(answer.stream()) } else { answer.whole().await }
}

async fn tokenize(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Fault> {
    let read = |body: &[u8], server: &Server| {
        let mut values = request::values(body)?;
        let prompt: String = values.required("prompt", "a text")?;
        let pipeline = &server.pipeline;
        let special: bool = values.optional("add_special_tokens", "true or false")?.unwrap_or_default();
        Ok(if special { pipeline.prompt_ids(&prompt, true) } else { pipeline.ids(&prompt, true) }?)
    };
    let (tokens, _room) = server.bodies.read(request).await?.understand(&server, read).await?;
    let max_model_len = server.pipeline.model.config().n_positions;
    Ok(json(StatusCode::OK, &TokenizeRecord { count: tokens.len(), tokens, max_model_len }))
}

async fn detokenize(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Fault> {
    let read = |body: &[u8], server: &Server| {
        let tokens: Vec<u32> = request::values(body)?.required("tokens", "a list of token ids")?;
        server.pipeline.check_ids(&tokens)?;
        Ok(server.pipeline.tokenizer()?.decode(&tokens, false)?)
    };
    let (prompt, _room) = server.bodies.read(request).await?.understand(&server, read).await?;
    Ok(json(StatusCode::OK, &DetokenizeRecord { prompt }))
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
