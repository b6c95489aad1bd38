//! What is wrong with a request, in OpenAI's shape.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gpt2::Error;

use super::http::json;
use crate::cli::advice::{self, Spelling};
use crate::output::openai::{FailureRecord, FaultRecord};

/// Why a request is not answered.
#[derive(Debug, Clone)]
pub struct Fault {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Fault {
    /// A request that cannot be answered as it is.
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The same, because of one of its parameters.
    pub fn parameter(parameter: &str, message: impl Into<String>) -> Self {
        Self { param: Some(parameter.to_owned()), ..Self::request(message) }
    }

    /// The same about a parameter, if it names none.
    pub fn about(self, parameter: &str) -> Self {
        Self { param: self.param.or_else(|| Some(parameter.to_owned())), ..self }
    }

    /// The same about what the client calls otherwise: `theirs` in place of our name of a parameter.
    pub fn renamed(mut self, ours: &str, theirs: &str) -> Self {
        if self.param.as_deref() == Some(ours) {
            self.param = theirs.split('.').next().map(str::to_owned);
            self.message = self.message.replace(&format!("`{ours}`"), &format!("`{theirs}`"));
        }
        self
    }

    /// The same with a word on which of several things it is about.
    pub fn of(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// A request that took longer than it may.
    pub fn late(seconds: u64) -> Self {
        let message = format!("the request took longer than {seconds} s: ask for less, or raise --timeout");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_code("timeout")
    }

    /// A model that failed; the program's log says more.
    pub fn model() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the model failed")
    }

    /// What it looks like in JSON.
    pub fn record(&self) -> FailureRecord {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE if self.code == Some("timeout") => "timeout_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let (message, param, code) = (self.message.clone(), self.param.clone(), self.code);
        FailureRecord { error: FaultRecord { message, kind, param, code } }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (status, param, code) = match &error {
            Error::Parameter { parameter, .. } => (StatusCode::BAD_REQUEST, Some(*parameter), None),
            Error::Context { .. } => (StatusCode::BAD_REQUEST, Some("prompt"), Some("context_length_exceeded")),
            Error::OutOfMemory(_) => (StatusCode::BAD_REQUEST, None, Some("out_of_memory")),
            Error::Usage(_) | Error::Numerics(_) | Error::Tokenizer(_) => (StatusCode::BAD_REQUEST, None, None),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, None, None),
        };
        let message = advice::line(&error.into(), "serve", Spelling::Keys);
        Self { status, message, param: param.map(str::to_owned), code }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.record());
        let headers = response.headers_mut();
        match self.status {
            // OpenAI's clients try again after a 5xx. What took too long would do so again.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INTERNAL_SERVER_ERROR => {
                headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
