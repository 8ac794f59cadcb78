//! Refusals: the status and the error envelope, in the words of the profile's server.

use http::StatusCode;
use serde_json::Value;

use crate::config::Config;
use crate::profile::{ErrorStyle, Profile, Traits};
use crate::request;
use crate::request::faults::{Fault, MAX_FAULTS};
use crate::wire::json_string;

/// A request that is refused: the status and the JSON body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// Of the endpoints that speak alike in every profile.
const EARLY: Traits = Profile::Vllm0110.traits();

/// vLLM's source file and line that its 0.11 names when it lists a body's faults.
const SOURCE_LINE: &str = "File \"/usr/lib/python3/site-packages/vllm/entrypoints/utils.py\", line 583, in";

impl Refusal {
    /// A check of the server's own. Later servers name the parameter, and the value where that is known.
    pub(crate) fn check(traits: Traits, message: &str, param: Option<(&str, Option<String>)>) -> Self {
        if traits.errors == ErrorStyle::Verbose {
            return Self::new(traits, StatusCode::BAD_REQUEST, "BadRequestError", message, None);
        }
        let Some((name, value)) = param else {
            return Self::new(traits, StatusCode::BAD_REQUEST, "BadRequestError", message, None);
        };
        let value = value.map(|value| format!(", value={value}")).unwrap_or_default();
        let message = format!("{message} (parameter={name}{value})");
        Self::new(traits, StatusCode::BAD_REQUEST, "BadRequestError", &message, Some(name))
    }

    /// A model that is not served.
    fn unknown_model(traits: Traits, model: &str, served: &[&str]) -> Self {
        let (status, kind) = (StatusCode::NOT_FOUND, "NotFoundError");
        let message = format!("The model `{model}` does not exist.");
        if traits.errors == ErrorStyle::Verbose {
            return Self::new(traits, status, kind, &message, None);
        }
        let message = format!("{message} Valid aliases: {}.", served.join(", "));
        Self::new(traits, status, kind, &message, Some("model"))
    }

    /// Faults of a body's shape, which are found before the server proper sees it. `route` is the function that would have
    /// answered, `path` its path.
    pub(crate) fn faults(traits: Traits, route: &str, path: &str, faults: &[Fault<'_>]) -> Self {
        let count = faults.len();
        let title = format!("{count} validation error{}:\n", if count == 1 { "" } else { "s" });
        let (status, kind) = (StatusCode::BAD_REQUEST, "Bad Request");
        if traits.errors == ErrorStyle::Verbose {
            let listed: Vec<String> = faults.iter().map(Fault::verbose).collect();
            let message = format!(
                "{title}  {}\n\n  {SOURCE_LINE} {route}\n    POST {path} [{}]",
                listed.join("\n  "),
                listed.join(", ")
            );
            return Self::new(traits, status, kind, &message, None);
        }
        let mut lines: Vec<String> = faults.iter().take(MAX_FAULTS).map(Fault::brief).collect();
        if count > MAX_FAULTS {
            lines.push(format!("...and {} more errors", count - MAX_FAULTS));
        }
        let message = format!("{title}  {}", lines.join("\n  "));
        let param = faults.first().map(Fault::param);
        Self::new(traits, status, kind, &message, param.as_deref())
    }

    /// A check of an endpoint that speaks as vLLM 0.11 does in every profile.
    pub(crate) fn bad_request(message: &str) -> Self {
        Self::check(EARLY, message, None)
    }

    /// A fault of a body's shape, of such an endpoint.
    pub(crate) fn validation(fault: &str) -> Self {
        let message = format!("1 validation error:\n  {fault}");
        Self::new(EARLY, StatusCode::BAD_REQUEST, "Bad Request", &message, None)
    }

    /// A body that is not JSON, or in which a field has the wrong type, of such an endpoint.
    pub(crate) fn shape(fault: &serde_json::Error) -> Self {
        let kind = if fault.is_data() { "type_error" } else { "json_invalid" };
        Self::validation(&format!(
            "{{'type': '{kind}', 'loc': ('body',), 'msg': 'JSON decode error: {fault}'}}"
        ))
    }

    /// A response that is not stored.
    pub(crate) fn no_response(traits: Traits, id: &str) -> Self {
        let message = format!("Response with id '{id}' not found.");
        let param = (traits.errors != ErrorStyle::Verbose).then_some("response_id");
        Self::new(traits, StatusCode::NOT_FOUND, "invalid_request_error", &message, param)
    }

    /// Refuses another model than the one that is served.
    pub(crate) fn unless_served(model: Option<&str>, config: &Config) -> Result<(), Self> {
        let served = request::served(config);
        match model {
            Some(model) if !served.contains(&model) => {
                Err(Self::unknown_model(config.wire.profile.traits(), model, &served))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn unsupported_media(traits: Traits) -> Self {
        let fault = "Unsupported Media Type: Only 'application/json' is allowed";
        let message = match traits.errors {
            ErrorStyle::Verbose => format!("1 validation error:\n  {fault} [{}]", json_string(fault)),
            ErrorStyle::Brief | ErrorStyle::OpenAi => format!("1 validation error:\n  {fault}"),
        };
        Self::new(traits, StatusCode::BAD_REQUEST, "Bad Request", &message, None)
    }

    pub(crate) fn too_large(traits: Traits, limit: usize) -> Self {
        let message = format!("the request's body is larger than {} MiB", limit >> 20);
        Self::new(traits, StatusCode::PAYLOAD_TOO_LARGE, "BadRequestError", &message, None)
    }

    /// The envelope. `kind` is vLLM's `type`; `OpenAI` has one for all that a client did wrong.
    pub(crate) fn new(
        traits: Traits,
        status: StatusCode,
        kind: &str,
        message: &str,
        param: Option<&str>,
    ) -> Self {
        let code = status.as_u16();
        if traits.errors == ErrorStyle::OpenAi {
            let error = serde_json::json!({"error": {
                "message": message, "type": "invalid_request_error", "param": param, "code": Value::Null,
            }});
            return Self { status, body: format!("{error:#}") };
        }
        let (kind, message) = (json_string(kind), json_string(message));
        let param = param.map_or_else(|| "null".to_owned(), json_string);
        let body = format!(
            "{{\"error\":{{\"message\":{message},\"type\":{kind},\"param\":{param},\"code\":{code}}}}}"
        );
        Self { status, body }
    }
}
