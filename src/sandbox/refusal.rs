//! Errors, in the shape of the vendor whose API was called.

use super::vendor::Vendor;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

/// Why a request was not done. As a response it carries itself along, and the middleware writes its body in the vendor's
/// words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// For a person.
    pub message: String,
    pub param: Option<String>,
    /// A word for a program.
    pub code: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// `param` makes no sense.
    pub fn wrong(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::invalid(message) }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// More than the sandbox can hold.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// With the word `code`.
    #[must_use]
    pub fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The body that `vendor` would send (`docs/providers.md#error-bodies`, Errors).
    pub fn body(&self, vendor: Vendor, request_id: &str) -> Value {
        let kind = self.kind(vendor);
        match vendor {
            Vendor::OpenAi => json!({"error": {
                "message": self.message, "type": kind, "param": self.param, "code": self.code,
            }}),
            Vendor::Anthropic => json!({
                "type": "error",
                "error": {"type": kind, "message": self.message},
                "request_id": request_id,
            }),
            Vendor::Gemini => json!({"error": {
                "code": self.status.as_u16(), "message": self.message, "status": kind,
            }}),
            Vendor::Mistral if self.status == StatusCode::UNPROCESSABLE_ENTITY => json!({"detail": [{
                "type": "value_error",
                "loc": ["body", self.param.as_deref().unwrap_or_default()],
                "msg": self.message,
            }]}),
            Vendor::Mistral if self.status == StatusCode::UNAUTHORIZED => json!({"detail": self.message}),
            Vendor::Mistral => json!({
                "object": "error",
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
                "request_id": request_id,
            }),
        }
    }

    /// The vendor's word for this kind of error.
    fn kind(&self, vendor: Vendor) -> &'static str {
        let status = self.status.as_u16();
        match vendor {
            Vendor::OpenAi => match status {
                429 => "rate_limit_error",
                500.. => "server_error",
                _ => "invalid_request_error",
            },
            Vendor::Anthropic => match status {
                401 => "authentication_error",
                402 => "billing_error",
                403 => "permission_error",
                404 => "not_found_error",
                409 => "conflict_error",
                413 => "request_too_large",
                429 => "rate_limit_error",
                504 => "timeout_error",
                529 => "overloaded_error",
                500.. => "api_error",
                _ => "invalid_request_error",
            },
            Vendor::Gemini => match status {
                401 => "UNAUTHENTICATED",
                403 => "PERMISSION_DENIED",
                404 => "NOT_FOUND",
                409 => "ABORTED",
                429 => "RESOURCE_EXHAUSTED",
                500 => "INTERNAL",
                501 => "UNIMPLEMENTED",
                503 => "UNAVAILABLE",
                504 => "DEADLINE_EXCEEDED",
                502.. => "UNKNOWN",
                _ if self.code == Some("failed_precondition") => "FAILED_PRECONDITION",
                _ => "INVALID_ARGUMENT",
            },
            Vendor::Mistral => match status {
                429 => "rate_limited",
                500.. => "internal_server_error",
                404 => "not_found",
                _ => "invalid_request",
            },
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vendor_says_it_in_its_own_shape() {
        let refusal = Refusal::wrong("limit", "too many");
        assert_eq!(
            refusal.body(Vendor::OpenAi, "r"),
            json!({"error": {"message": "too many", "type": "invalid_request_error", "param": "limit", "code": null}})
        );
        assert_eq!(
            Refusal::new(StatusCode::from_u16(529).unwrap(), "busy").body(Vendor::Anthropic, "r"),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": "r"})
        );
        assert_eq!(
            Refusal::not_found("gone").body(Vendor::Gemini, "r"),
            json!({"error": {"code": 404, "message": "gone", "status": "NOT_FOUND"}})
        );
        let refusal = Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, ..refusal };
        assert_eq!(
            refusal.body(Vendor::Mistral, "r"),
            json!({"detail": [{"type": "value_error", "loc": ["body", "limit"], "msg": "too many"}]})
        );
    }
}
