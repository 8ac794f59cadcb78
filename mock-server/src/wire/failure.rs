//! How a stream ends whose engine failed when it had begun: the status is sent already, so an event tells of it.

use bytes::Bytes;
use serde_json::json;

use super::Endpoint;
use crate::profile::{Shape, Traits};
use crate::truth::EventKind;

/// Whose stream it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// Chunks, then `[DONE]`.
    Chunks(Traits, Endpoint),
    /// Typed events. vLLM breaks the connection off instead; the event is `OpenAI`'s.
    Typed,
}

impl Failure {
    /// The events that end it after so many others.
    pub(crate) fn events(self, after: usize) -> Vec<(EventKind, Bytes)> {
        const MESSAGE: &str = "injected by the mock server";
        let Self::Chunks(traits, endpoint) = self else {
            let error = json!({"type": "error", "code": "server_error", "message": MESSAGE, "param": null,
                               "sequence_number": after});
            return vec![(EventKind::Error, format!("event: error\ndata: {error}\n\n").into())];
        };
        // vLLM 0.11 takes every failure for the client's.
        let (kind, code) = match traits.shape {
            Shape::First => ("\"BadRequestError\"", "400"),
            Shape::Second | Shape::Third => ("\"InternalServerError\"", "500"),
            Shape::OpenAi => ("\"server_error\"", "null"),
        };
        // Most are written by Python's `json.dumps`, which leaves spaces.
        let compact = match traits.shape {
            Shape::First | Shape::Second => false,
            Shape::Third => endpoint == Endpoint::Chat,
            Shape::OpenAi => true,
        };
        let space = if compact { "" } else { " " };
        let error = format!(
            "data: {{\"error\":{space}{{\"message\":{space}\"{MESSAGE}\",{space}\"type\":{space}{kind},{space}\"param\":{space}null,\
             {space}\"code\":{space}{code}}}}}\n\n"
        );
        vec![(EventKind::Error, error.into()), (EventKind::Done, Bytes::from_static(b"data: [DONE]\n\n"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn errors_are_written_as_the_profile_writes_them() {
        let told = |failure: Failure| String::from_utf8(failure.events(7)[0].1.to_vec()).unwrap();
        let chunks = |profile: Profile, endpoint| told(Failure::Chunks(profile.traits(), endpoint));
        let spaced = |kind: &str, code: &str| {
            format!(
                "data: {{\"error\": {{\"message\": \"injected by the mock server\", \"type\": \"{kind}\", \
                 \"param\": null, \"code\": {code}}}}}\n\n"
            )
        };
        for endpoint in [Endpoint::Chat, Endpoint::Completions] {
            assert_eq!(chunks(Profile::Vllm0110, endpoint), spaced("BadRequestError", "400"));
            assert_eq!(chunks(Profile::Vllm0320, endpoint), spaced("InternalServerError", "500"));
        }
        let internal = spaced("InternalServerError", "500");
        assert_eq!(chunks(Profile::Vllm0330, Endpoint::Completions), internal);
        let compact = internal.replace("\": ", "\":").replace(", \"", ",\"");
        assert_eq!(chunks(Profile::Vllm0330, Endpoint::Chat), compact);
        let typed = told(Failure::Typed);
        assert!(
            typed.starts_with("event: error\ndata: {\"type\":\"error\",") && typed.contains(":7}"),
            "{typed}"
        );
    }
}
