//! vLLM 0.11.0's bytes: stream chunks, whole answers, the model list and the error envelope, key for key.
//!
//! Every event of a stream is built before its first deadline, in one buffer that is then handed out slice by slice,
//! so that nothing is formatted or allocated when a token is due. That costs some 230 bytes a token.

use std::fmt::Write;

use bytes::Bytes;

use crate::truth::EventKind;

/// Room for what an event says besides its preamble; more is only slower.
const BYTES_AFTER_PREAMBLE: usize = 128;

/// Which of the two generating endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
}

impl Endpoint {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    pub(crate) const fn id_prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl-",
            Self::Completions => "cmpl-",
        }
    }
}

/// Where a stream tells its token counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UsageMode {
    Never,
    /// In one event of its own, after the last token.
    Last,
    /// In that, and in every event before it.
    Continuous,
}

/// Everything that an answer says.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) id: &'a str,
    /// Unix time in seconds.
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    /// Each token's text, as the inside of a JSON string.
    pub(crate) tokens: &'a [&'a str],
    pub(crate) prompt_tokens: usize,
    /// The prompt's token ids: 0.11.0 repeats them in the first event of a completions stream, asked or not.
    pub(crate) prompt_ids: &'a [u32],
    pub(crate) usage: UsageMode,
}

/// The events of one stream, in order.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Bytes,
    lengths: std::vec::IntoIter<usize>,
    kinds: Vec<EventKind>,
}

impl Frames {
    /// The events of a text, each so many bytes of it.
    pub(crate) fn new(text: String, lengths: Vec<usize>, kinds: Vec<EventKind>) -> Self {
        Self { bytes: text.into(), lengths: lengths.into_iter(), kinds }
    }

    /// What each event is, whether or not it has been taken.
    pub(crate) fn kinds(&self) -> &[EventKind] {
        &self.kinds
    }
}

impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.lengths.next().map(|length| self.bytes.split_to(length))
    }
}

/// The answer as a stream of server-sent events, `data: [DONE]` included.
pub(crate) fn stream(answer: &Answer<'_>) -> Frames {
    let object = match answer.endpoint {
        Endpoint::Chat => "chat.completion.chunk",
        Endpoint::Completions => "text_completion",
    };
    let mut out = Writer::new(answer, object);
    out.reserve(answer.tokens.len() + 3);
    if answer.endpoint == Endpoint::Chat {
        out.event(EventKind::Role, Writer::role_choice);
    }
    for (index, text) in answer.tokens.iter().enumerate() {
        out.event(EventKind::Token, |out| out.token_choice(index, text));
    }
    if answer.usage != UsageMode::Never {
        out.event(EventKind::Usage, |out| {
            out.text.push_str("],\"usage\":");
            out.usage(answer.tokens.len(), "");
        });
    }
    out.done()
}

/// The answer as one JSON body.
pub(crate) fn body(answer: &Answer<'_>) -> String {
    let (object, content, end_of_content) = match answer.endpoint {
        Endpoint::Chat => (
            "chat.completion",
            "\"message\":{\"role\":\"assistant\",\"content\":\"",
            "\",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":[],\
             \"reasoning_content\":null}",
        ),
        Endpoint::Completions => ("text_completion", "\"text\":\"", "\""),
    };
    let mut out = Writer::new(answer, object);
    out.text.push_str(&out.preamble);
    out.text.push_str("{\"index\":0,");
    out.text.push_str(content);
    answer.tokens.iter().for_each(|token| out.text.push_str(token));
    out.text.push_str(end_of_content);
    out.text
        .push_str(",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null");
    if answer.endpoint == Endpoint::Completions {
        out.text.push_str(",\"prompt_logprobs\":null,\"prompt_token_ids\":null");
    }
    out.text.push_str("}],\"service_tier\":null,\"system_fingerprint\":null,\"usage\":");
    out.usage(answer.tokens.len(), ",\"prompt_tokens_details\":null");
    if answer.endpoint == Endpoint::Chat {
        out.text.push_str(",\"prompt_logprobs\":null,\"prompt_token_ids\":null");
    }
    out.text.push_str(",\"kv_transfer_params\":null}");
    out.text
}

/// The model list, of one model.
pub(crate) fn models(model: &str, max_model_len: u32, created: u64, permission_id: &str) -> String {
    let model = json_string(model);
    format!(
        "{{\"object\":\"list\",\"data\":[{{\"id\":{model},\"object\":\"model\",\"created\":{created},\
         \"owned_by\":\"vllm\",\"root\":{model},\"parent\":null,\"max_model_len\":{max_model_len},\
         \"permission\":[{{\"id\":\"modelperm-{permission_id}\",\"object\":\"model_permission\",\
         \"created\":{created},\"allow_create_engine\":false,\"allow_sampling\":true,\"allow_logprobs\":true,\
         \"allow_search_indices\":false,\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\",\
         \"group\":null,\"is_blocking\":false}}]}}]}}"
    )
}

/// The error envelope. `kind` is vLLM's `type`.
pub(crate) fn error(status: u16, kind: &str, message: &str) -> String {
    let (kind, message) = (json_string(kind), json_string(message));
    format!("{{\"error\":{{\"message\":{message},\"type\":{kind},\"param\":null,\"code\":{status}}}}}")
}

/// `text` as a JSON string, quotes included.
pub(crate) fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `text` as the inside of a JSON string.
pub(crate) fn json_inside(text: &str) -> String {
    let quoted = json_string(text);
    quoted[1..quoted.len() - 1].to_owned()
}

/// Writes an answer's pieces into one buffer.
struct Writer<'a> {
    answer: &'a Answer<'a>,
    /// What every event begins with, up to the bracket that opens `choices`.
    preamble: String,
    text: String,
    lengths: Vec<usize>,
    kinds: Vec<EventKind>,
}

impl<'a> Writer<'a> {
    fn new(answer: &'a Answer<'a>, object: &str) -> Self {
        let (id, created, model) = (json_string(answer.id), answer.created, json_string(answer.model));
        let preamble = format!(
            "{{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":["
        );
        Self { answer, preamble, text: String::new(), lengths: Vec::new(), kinds: Vec::new() }
    }

    fn reserve(&mut self, events: usize) {
        self.text.reserve(events * (self.preamble.len() + BYTES_AFTER_PREAMBLE));
        self.lengths.reserve(events);
        self.kinds.reserve(events);
    }

    fn event(&mut self, kind: EventKind, rest: impl FnOnce(&mut Self)) {
        let start = self.text.len();
        self.text.push_str("data: ");
        self.text.push_str(&self.preamble);
        rest(self);
        self.text.push_str("}\n\n");
        self.lengths.push(self.text.len() - start);
        self.kinds.push(kind);
    }

    fn role_choice(&mut self) {
        self.text.push_str(
            "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]",
        );
        self.running_usage(0);
        self.text.push_str(",\"prompt_token_ids\":null");
    }

    fn token_choice(&mut self, index: usize, text: &str) {
        let last = index + 1 == self.answer.tokens.len();
        let chat = self.answer.endpoint == Endpoint::Chat;
        self.text.push_str(if chat {
            "{\"index\":0,\"delta\":{\"content\":\""
        } else {
            "{\"index\":0,\"text\":\""
        });
        self.text.push_str(text);
        self.text.push_str(if chat { "\"},\"logprobs\":null" } else { "\",\"logprobs\":null" });
        self.text.push_str(if last { ",\"finish_reason\":\"length\"" } else { ",\"finish_reason\":null" });
        if last || !chat {
            self.text.push_str(",\"stop_reason\":null");
        }
        if !chat {
            self.text.push_str(",\"prompt_token_ids\":");
            self.prompt_ids(index == 0);
        }
        self.text.push_str(",\"token_ids\":null}]");
        self.running_usage(index + 1);
    }

    fn prompt_ids(&mut self, first: bool) {
        if !first {
            self.text.push_str("null");
            return;
        }
        let mut separator = '[';
        for id in self.answer.prompt_ids {
            self.write(format_args!("{separator}{id}"));
            separator = ',';
        }
        self.text.push_str(if separator == '[' { "[]" } else { "]" });
    }

    /// The counts so far; where there are none, chat leaves the key out and completions says `null`.
    fn running_usage(&mut self, completion_tokens: usize) {
        if self.answer.usage == UsageMode::Continuous {
            self.text.push_str(",\"usage\":");
            self.usage(completion_tokens, "");
        } else if self.answer.endpoint == Endpoint::Completions {
            self.text.push_str(",\"usage\":null");
        }
    }

    fn usage(&mut self, completion_tokens: usize, more: &str) {
        let prompt_tokens = self.answer.prompt_tokens;
        let total_tokens = prompt_tokens + completion_tokens;
        self.write(format_args!(
            "{{\"prompt_tokens\":{prompt_tokens},\"total_tokens\":{total_tokens},\
             \"completion_tokens\":{completion_tokens}{more}}}"
        ));
    }

    fn done(mut self) -> Frames {
        let done = "data: [DONE]\n\n";
        self.text.push_str(done);
        self.lengths.push(done.len());
        self.kinds.push(EventKind::Done);
        Frames::new(self.text, self.lengths, self.kinds)
    }

    #[expect(clippy::expect_used, reason = "a String takes whatever is written to it")]
    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("writing to a String");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capture's body.
    macro_rules! captured {
        ($name:literal) => {{
            let capture = include_str!(concat!("../fixtures/vllm-0.11.0/", $name, ".http"));
            capture.split_once("\r\n\r\n").unwrap().1
        }};
    }

    fn chat<'a>(id: &'a str, created: u64, tokens: &'a [&'a str], usage: UsageMode) -> Answer<'a> {
        Answer {
            endpoint: Endpoint::Chat,
            id,
            created,
            model: "Qwen2.5-0.5B-Instruct",
            tokens,
            prompt_tokens: 9,
            prompt_ids: &[],
            usage,
        }
    }

    fn completions(id: &str, usage: UsageMode) -> Answer<'_> {
        let tokens = &["-side", "-minded", "-ro", "_SID", "-ro"];
        Answer {
            endpoint: Endpoint::Completions,
            prompt_tokens: 1,
            prompt_ids: &[14990],
            ..chat(id, 1_795_498_823, tokens, usage)
        }
    }

    fn text(frames: Frames) -> String {
        assert_eq!(frames.lengths.len(), frames.kinds.len());
        let events: Vec<Bytes> = frames.collect();
        assert!(events.iter().all(|event| event.starts_with(b"data: ") && event.ends_with(b"\n\n")));
        String::from_utf8(events.concat()).unwrap()
    }

    #[test]
    fn chat_streams_are_vllms() {
        let tokens = [r" MD\n", " MD", r"\n", " MD"];
        let answer =
            chat("chatcmpl-cfa11461daff4fb0b48ad9151274add7", 1_795_498_805, &tokens, UsageMode::Never);
        assert_eq!(text(stream(&answer)), captured!("post_chat_stream"));

        let answer = chat("chatcmpl-abc-123", 1_795_498_805, &[" MD", r"\n"], UsageMode::Never);
        assert_eq!(text(stream(&answer)), captured!("post_chat_stream_max_completion"));
    }

    #[test]
    fn chat_usage_is_vllms() {
        let capture = captured!("post_chat_stream_usage");
        // The capture's first event carries two tokens; here each carries one.
        let capture = capture.replace(
            "\"total_tokens\":14,\"completion_tokens\":5",
            "\"total_tokens\":13,\"completion_tokens\":4",
        );
        let tokens = [r" MD\n", " MD", r"\n", " MD"];
        let answer =
            chat("chatcmpl-5cff792239c746328f6629e8f679028f", 1_795_498_805, &tokens, UsageMode::Last);
        assert_eq!(text(stream(&answer)), capture);

        let tokens = [" MD", r"\n", " MD"];
        let answer =
            chat("chatcmpl-31ac2959149145b9a463b4a55af66eb4", 1_795_498_805, &tokens, UsageMode::Continuous);
        assert_eq!(text(stream(&answer)), captured!("post_chat_stream_usage_continuous"));
    }

    #[test]
    fn completions_streams_are_vllms() {
        let answer = completions("cmpl-496cb81514754065a89132a06e6e4f7c", UsageMode::Never);
        assert_eq!(text(stream(&answer)), captured!("post_completions_stream"));
        let answer = completions("cmpl-50bc641facef468ab1023922d07aee57", UsageMode::Last);
        assert_eq!(text(stream(&answer)), captured!("post_completions_stream_usage"));
    }

    #[test]
    fn whole_answers_are_vllms() {
        let tokens = [" MD", r"\n", " MD", r"\n"];
        let answer =
            chat("chatcmpl-09b65893380f4b4ba076820e9a41fbac", 1_795_498_823, &tokens, UsageMode::Never);
        assert_eq!(body(&answer), captured!("post_chat"));
        // The capture of a whole completion has logprobs, which the mock does not send: its keys were read off by hand.
        let answer = completions("cmpl-1", UsageMode::Never);
        assert_eq!(
            body(&answer),
            "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1795498823,\
             \"model\":\"Qwen2.5-0.5B-Instruct\",\"choices\":[{\"index\":0,\"text\":\"-side-minded-ro_SID-ro\",\
             \"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null,\
             \"prompt_logprobs\":null,\"prompt_token_ids\":null}],\"service_tier\":null,\
             \"system_fingerprint\":null,\"usage\":{\"prompt_tokens\":1,\"total_tokens\":6,\
             \"completion_tokens\":5,\"prompt_tokens_details\":null},\"kv_transfer_params\":null}"
        );
    }

    #[test]
    fn the_model_list_is_vllms() {
        let capture = captured!("get_models").replace("./model", "Qwen2.5-0.5B-Instruct");
        let list = models("Qwen2.5-0.5B-Instruct", 4096, 1_795_498_805, "a3bf272ff2e2462286dc4e18bb8d2918");
        assert_eq!(list, capture);
    }

    #[test]
    fn what_a_client_names_is_escaped() {
        let answer = chat("chatcmpl-\"}\n", 0, &["a"], UsageMode::Never);
        let event = stream(&answer).next().unwrap();
        let data = event.strip_prefix(b"data: ").unwrap();
        let chunk: serde_json::Value = serde_json::from_slice(data).unwrap();
        assert_eq!(chunk["id"], "chatcmpl-\"}\n");
        assert_eq!(json_inside("a\"b\n"), r#"a\"b\n"#);
    }
}
