//! `/v1/responses`: what is asked, the typed events of a stream, and the whole answer, as vLLM 0.11.0 has them or as vLLM
//! 0.32.0, whose answers say that they are incomplete where their length ended them: here, always. Of vLLM 0.33 and of
//! `OpenAI` there is nothing to compare with; the former is taken to speak as 0.32.0 does, the latter as 0.11.0,
//! but for what stands in the way of its own client.
//!
//! `response.created` and `response.in_progress` go out as soon as the request has come; all others with their tokens.
//! As with vLLM 0.11.0, the response in its `response.completed` has the text of the last output alone. No `[DONE]`
//! follows.
//! Of what a request may set, tools, `text`, `reasoning`, `include` and `background` are taken and ignored.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::profile::{ErrorStyle, Shape};
use crate::refusal::Refusal;
use crate::request::faults::{Fault, Place};
use crate::truth::EventKind;
use crate::wire::{Frames, json_string};

/// The endpoint.
pub(crate) const PATH: &str = "/v1/responses";

/// The function that answers it, as refusals name it.
const ROUTE: &str = "create_responses";

/// The events that tell that the request was taken, before the engine has anything.
const OPENING: usize = 2;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) stream: bool,
    pub(crate) prompt_tokens: usize,
    pub(crate) max_tokens: u32,
    /// The id that the body asks for.
    pub(crate) id: Option<String>,
    temperature: f64,
    top_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    /// What is repeated as it was given, as JSON.
    instructions: String,
    metadata: String,
    user: String,
}

#[derive(Deserialize)]
struct Fields {
    model: Option<String>,
    #[serde(default)]
    instructions: Value,
    max_output_tokens: Option<i64>,
    #[serde(default)]
    metadata: Value,
    previous_response_id: Option<String>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    request_id: Option<String>,
    stream: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(default)]
    user: Value,
}

/// Parses and checks a body.
pub(crate) fn parse(body: &[u8], config: &Config) -> Result<Asked, Refusal> {
    let traits = config.wire.profile.traits();
    let mut given = crate::request::json(body, config, ROUTE, PATH)?;
    if let (Some(fields), Shape::Second | Shape::Third) = (given.as_object_mut(), traits.shape) {
        // vLLM 0.32 sets it so before it looks for faults, and counts it among the fields.
        fields.entry("tool_choice").or_insert_with(|| "none".into());
    }
    let refuse = |faults: &[Fault<'_>]| Refusal::faults(traits, ROUTE, PATH, faults);
    let place = || vec![Place::Field("input")];
    let input = match given.get("input") {
        None => return Err(refuse(&[Fault::missing(place(), &given)])),
        Some(input @ (Value::String(_) | Value::Array(_))) => input,
        Some(other) => {
            let fault = |kind, message| Fault::new(kind, place(), message, Some(other));
            return Err(refuse(&[
                fault("string_type", "Input should be a valid string"),
                fault("list_type", "Input should be a valid list"),
            ]));
        }
    };
    let fields = Fields::deserialize(&given).map_err(|fault| Refusal::shape(&fault))?;
    Refusal::unless_served(fields.model.as_deref(), config)?;
    if let Some(id) = fields.previous_response_id {
        // No response is stored, as vLLM stores none unless it is told to.
        return Err(Refusal::no_response(traits, &id));
    }
    let limit = i64::from(config.max_model_len);
    if let Some(asked) = fields.max_output_tokens.filter(|&asked| asked > limit)
        && traits.errors != ErrorStyle::Verbose
    {
        let message = format!(
            "max_output_tokens={asked} cannot be greater than max_model_len={limit}. Please request fewer output \
             tokens."
        );
        let param = Some(("max_output_tokens", Some(asked.to_string())));
        return Err(Refusal::check(traits, &message, param));
    }
    let prompt_tokens = prompt_tokens(&fields.instructions, input, config)?;
    let room = limit - i64::try_from(prompt_tokens).unwrap_or(i64::MAX);
    // vLLM fills the context where no limit is given.
    let asked = fields.max_output_tokens.unwrap_or_else(|| config.chat_max_tokens.into()).min(room);
    let max_tokens = u32::try_from(asked).ok().filter(|&tokens| tokens > 0).ok_or_else(|| {
        let message = format!("max_tokens must be at least 1, got {asked}.");
        Refusal::check(traits, &message, Some(("max_tokens", Some(asked.to_string()))))
    })?;
    Ok(Asked {
        stream: fields.stream.unwrap_or(false),
        prompt_tokens,
        max_tokens,
        id: fields.request_id,
        temperature: fields.temperature.unwrap_or(1.0),
        top_p: fields.top_p.unwrap_or(1.0),
        presence_penalty: fields.presence_penalty.unwrap_or(0.0),
        frequency_penalty: fields.frequency_penalty.unwrap_or(0.0),
        instructions: fields.instructions.to_string(),
        metadata: fields.metadata.to_string(),
        user: fields.user.to_string(),
    })
}

/// The prompt's tokens: instructions are a system message, a text is a user's message.
fn prompt_tokens(instructions: &Value, input: &Value, config: &Config) -> Result<usize, Refusal> {
    let mut messages = Vec::new();
    if instructions.is_string() {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match input {
        Value::Array(items) => messages.extend(items.iter().map(message)),
        text => messages.push(json!({"role": "user", "content": text})),
    }
    crate::request::chat_tokens(&Value::Array(messages), config)
}

/// An item of the input as a message: the texts of its parts.
fn message(item: &Value) -> Value {
    let content = match &item["content"] {
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<String>().into()
        }
        content => content.clone(),
    };
    json!({"role": item["role"], "content": content})
}

/// Everything that an answer says.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) asked: &'a Asked,
    /// Whose bytes.
    pub(crate) shape: Shape,
    pub(crate) id: &'a str,
    /// Hex digits of the item that a stream adds: as many as the profile's ids have.
    pub(crate) item_digits: &'a str,
    /// Hex digits of the message in the response.
    pub(crate) message_digits: &'a str,
    /// Unix time in seconds.
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    /// Each token's text, as the inside of a JSON string.
    pub(crate) tokens: &'a [&'a str],
}

/// The answer as a stream of typed events.
pub(crate) fn stream(answer: &Answer<'_>) -> Frames {
    let mut out = Writer::default();
    // Some 250 bytes an event, and the response thrice.
    out.text.reserve(256 * answer.tokens.len() + (8 << 10));
    let begun = if answer.is_later() {
        answer.response("in_progress", "[]", "null")
    } else {
        answer.streamed_response("in_progress", "[]", "null")
    };
    for kind in ["created", "in_progress"] {
        out.event(EventKind::Frame, kind, |number, text| {
            write!(text, "\"response\":{begun},\"sequence_number\":{number}")
        });
    }
    // vLLM 0.11 names the message anew in the end, counts a part of the content for each event, and ends with the text of
    // the last output alone, so that the openai client cannot put its streams together.
    let (later, early) = (answer.is_later(), answer.shape == Shape::First);
    let id = if early { uuid(answer.item_digits) } else { format!("msg_{}", answer.item_digits) };
    let item = |status: &str, content: &str, more: &str| {
        let more = if later { ",\"phase\":null" } else { more };
        format!(
            "{{\"id\":\"{id}\",\"content\":[{content}],\"role\":\"assistant\",\"status\":\"{status}\",\
             \"type\":\"message\"{more}}}"
        )
    };
    out.event(EventKind::Frame, "output_item.added", |number, text| {
        let item = item("in_progress", "", "");
        write!(text, "\"item\":{item},\"output_index\":0,\"sequence_number\":{number}")
    });
    out.event(EventKind::Frame, "content_part.added", |number, text| {
        write!(
            text,
            "\"content_index\":0,\"item_id\":\"{id}\",\"output_index\":0,\"part\":{{\"annotations\":[],\
             \"text\":\"\",\"type\":\"output_text\",\"logprobs\":[]}},\"sequence_number\":{number}"
        )
    });
    let step = usize::from(early);
    let mut part = step;
    for token in answer.tokens {
        out.event(EventKind::Token, "output_text.delta", |number, text| {
            write!(
                text,
                "\"content_index\":{part},\"delta\":\"{token}\",\"item_id\":\"{id}\",\"logprobs\":[],\
                 \"output_index\":0,\"sequence_number\":{number}"
            )
        });
        part += step;
    }
    let all = answer.tokens.concat();
    out.event(EventKind::Frame, "output_text.done", |number, text| {
        write!(
            text,
            "\"content_index\":{part},\"item_id\":\"{id}\",\"logprobs\":[],\"output_index\":0,\
             \"sequence_number\":{number},\"text\":\"{all}\""
        )
    });
    part += step;
    let whole = output_text(&all);
    out.event(EventKind::Frame, "content_part.done", |number, text| {
        write!(
            text,
            "\"content_index\":{part},\"item_id\":\"{id}\",\"output_index\":0,\"part\":{whole},\
             \"sequence_number\":{number}"
        )
    });
    out.event(EventKind::Frame, "output_item.done", |number, text| {
        let item = item("completed", &whole, ",\"summary\":[]");
        write!(text, "\"item\":{item},\"output_index\":0,\"sequence_number\":{number}")
    });
    let output = if early {
        answer.output(answer.message_digits, answer.tokens.last().copied().unwrap_or_default())
    } else {
        answer.output(answer.item_digits, &all)
    };
    let ended = if later {
        answer.response("incomplete", &output, &answer.usage())
    } else {
        answer.streamed_response("completed", &output, &answer.usage())
    };
    out.event(EventKind::Done, "completed", |number, text| {
        write!(text, "\"response\":{ended},\"sequence_number\":{number}")
    });
    Frames::new(out.text, out.lengths, out.kinds, OPENING)
}

/// The answer as one JSON body.
pub(crate) fn body(answer: &Answer<'_>) -> String {
    let output = answer.output(answer.message_digits, &answer.tokens.concat());
    if answer.is_later() {
        return answer.response("incomplete", &output, &answer.usage());
    }
    let Answer { asked, id, created, model, .. } = answer;
    let Asked { temperature, top_p, max_tokens, instructions, metadata, user, .. } = asked;
    format!(
        "{{\"id\":{id},\"created_at\":{created},\"incomplete_details\":null,\"instructions\":{instructions},\
         \"metadata\":{metadata},\"model\":{model},\"object\":\"response\",\"output\":{output},\
         \"input_messages\":null,\"output_messages\":null,\"parallel_tool_calls\":true,\
         \"temperature\":{temperature:?},\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":{top_p:?},\
         \"background\":false,\"max_output_tokens\":{max_tokens},\"max_tool_calls\":null,\
         \"previous_response_id\":null,\"prompt\":null,\"reasoning\":null,\"service_tier\":\"auto\",\
         \"status\":\"completed\",\"text\":null,\"top_logprobs\":null,\"truncation\":\"disabled\",\
         \"usage\":{usage},\"user\":{user}}}",
        id = json_string(id),
        model = json_string(model),
        usage = answer.usage(),
    )
}

impl Answer<'_> {
    fn is_later(&self) -> bool {
        matches!(self.shape, Shape::Second | Shape::Third)
    }

    /// The response as vLLM 0.32 has it everywhere.
    fn response(&self, status: &str, output: &str, usage: &str) -> String {
        let Answer { asked, id, created, model, .. } = self;
        let Asked { temperature, top_p, max_tokens, instructions, metadata, user, .. } = asked;
        let Asked { presence_penalty, frequency_penalty, .. } = asked;
        let details = if status == "incomplete" { "{\"reason\":\"max_output_tokens\"}" } else { "null" };
        format!(
            "{{\"id\":{id},\"created_at\":{created},\"incomplete_details\":{details},\
             \"instructions\":{instructions},\"metadata\":{metadata},\"model\":{model},\"object\":\"response\",\
             \"output\":{output},\"parallel_tool_calls\":true,\"temperature\":{temperature:?},\
             \"tool_choice\":\"none\",\"tools\":[],\"top_p\":{top_p:?},\"background\":false,\
             \"max_output_tokens\":{max_tokens},\"max_tool_calls\":null,\"previous_response_id\":null,\
             \"prompt\":null,\"reasoning\":null,\"service_tier\":\"auto\",\"status\":\"{status}\",\"text\":null,\
             \"top_logprobs\":null,\"truncation\":\"disabled\",\"usage\":{usage},\"user\":{user},\
             \"presence_penalty\":{presence_penalty:?},\"frequency_penalty\":{frequency_penalty:?},\
             \"kv_transfer_params\":null,\"ec_transfer_params\":null,\"input_messages\":null,\
             \"output_messages\":null}}",
            id = json_string(id),
            model = json_string(model),
        )
    }

    /// The response as the events of vLLM 0.11's streams have it, which is not quite as the body has it.
    fn streamed_response(&self, status: &str, output: &str, usage: &str) -> String {
        let Answer { asked, id, created, model, .. } = self;
        let Asked { temperature, top_p, max_tokens, instructions, metadata, user, .. } = asked;
        format!(
            "{{\"id\":{id},\"created_at\":{created}.0,\"error\":null,\"incomplete_details\":null,\
             \"instructions\":{instructions},\"metadata\":{metadata},\"model\":{model},\"object\":\"response\",\
             \"output\":{output},\"parallel_tool_calls\":true,\"temperature\":{temperature:?},\
             \"tool_choice\":\"auto\",\"tools\":[],\"top_p\":{top_p:?},\"background\":false,\
             \"conversation\":null,\"max_output_tokens\":{max_tokens},\"max_tool_calls\":null,\
             \"previous_response_id\":null,\"prompt\":null,\"prompt_cache_key\":null,\"reasoning\":null,\
             \"safety_identifier\":null,\"service_tier\":\"auto\",\"status\":\"{status}\",\"text\":null,\
             \"top_logprobs\":null,\"truncation\":\"disabled\",\"usage\":{usage},\"user\":{user},\
             \"input_messages\":null,\"output_messages\":null}}",
            id = json_string(id),
            model = json_string(model),
        )
    }

    /// The output: one message.
    fn output(&self, digits: &str, text: &str) -> String {
        let phase = if self.is_later() { ",\"phase\":null" } else { "" };
        format!(
            "[{{\"id\":\"msg_{digits}\",\"content\":[{}],\"role\":\"assistant\",\"status\":\"completed\",\
             \"type\":\"message\"{phase}}}]",
            output_text(text)
        )
    }

    fn usage(&self) -> String {
        let (input, output) = (self.asked.prompt_tokens, self.tokens.len());
        let (of_input, of_output) = if self.is_later() {
            (
                ",\"cache_write_tokens\":0,\"input_tokens_per_turn\":[],\"cached_tokens_per_turn\":[]",
                ",\"output_tokens_per_turn\":[],\"tool_output_tokens_per_turn\":[]",
            )
        } else {
            ("", "")
        };
        format!(
            "{{\"input_tokens\":{input},\"input_tokens_details\":{{\"cached_tokens\":0{of_input}}},\
             \"output_tokens\":{output},\"output_tokens_details\":{{\"reasoning_tokens\":0,\
             \"tool_output_tokens\":0{of_output}}},\"total_tokens\":{}}}",
            input + output
        )
    }
}

/// A part of a message that is complete; `text` is the inside of a JSON string.
fn output_text(text: &str) -> String {
    format!("{{\"annotations\":[],\"text\":\"{text}\",\"type\":\"output_text\",\"logprobs\":null}}")
}

/// 32 hex digits in a UUID's groups.
fn uuid(digits: &str) -> String {
    let mut text = digits.to_owned();
    for at in [20, 16, 12, 8] {
        if text.is_char_boundary(at) {
            text.insert(at, '-');
        }
    }
    text
}

/// Writes events into one buffer.
#[derive(Default)]
struct Writer {
    text: String,
    lengths: Vec<usize>,
    kinds: Vec<EventKind>,
}

impl Writer {
    /// Adds `response.KIND`; `fields` writes what stands before its type, and is told its number.
    #[expect(clippy::expect_used, reason = "a String takes whatever is written to it")]
    fn event(
        &mut self,
        kind: EventKind,
        name: &str,
        fields: impl FnOnce(usize, &mut String) -> std::fmt::Result,
    ) {
        let (number, start) = (self.kinds.len(), self.text.len());
        let text = &mut self.text;
        let written = write!(text, "event: response.{name}\ndata: {{")
            .and_then(|()| fields(number, text))
            .and_then(|()| write!(text, ",\"type\":\"response.{name}\"}}\n\n"));
        written.expect("writing to a String");
        self.lengths.push(self.text.len() - start);
        self.kinds.push(kind);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokentape_tokenizer::Tokenizer;

    use super::*;
    use crate::profile::{Profile, Wire};
    use crate::timing::Timing;

    const TOKENS: [&str; 3] = [r" MD\n", r#" \"é\""#, " MD"];

    fn config(profile: Profile) -> Config {
        let timing = Timing::fixed(0, 0);
        let wire = Wire { profile, ..Wire::default() };
        let tokenizer = Arc::new(Tokenizer::embedded().unwrap());
        Config { max_model_len: 100, wire, ..Config::new("m", tokenizer, timing) }
    }

    fn answer<'a>(asked: &'a Asked, message_digits: &'a str) -> Answer<'a> {
        Answer {
            asked,
            shape: Shape::First,
            id: "resp_0000000000000000000000000000000a",
            item_digits: "00000000000000000000000000000001",
            message_digits,
            created: 1_795_498_805,
            model: "m",
            tokens: &TOKENS,
        }
    }

    fn asked(user: &str) -> Asked {
        let body =
            format!(r#"{{"model":"m","input":"hi","max_output_tokens":3,"temperature":0.5,"user":{user}}}"#);
        Asked { prompt_tokens: 9, ..parse(body.as_bytes(), &config(Profile::Vllm0110)).unwrap() }
    }

    /// The events of an answer: each is one, and is of its kind.
    fn streamed(answer: &Answer<'_>, tokens: usize) -> String {
        let frames = stream(answer);
        let kinds = frames.kinds().to_vec();
        assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Token).count(), tokens);
        assert_eq!(kinds.last(), Some(&EventKind::Done));
        // Two are told at once, all others with their tokens.
        assert!(frames.tokens().iter().enumerate().all(|(number, token)| token.is_none() == (number < 2)));
        let events: Vec<_> = frames.collect();
        assert!(events.iter().all(|event| event.starts_with(b"event: ") && event.ends_with(b"}\n\n")));
        String::from_utf8(events.concat()).unwrap()
    }

    #[test]
    fn the_stream_is_vllms() {
        let asked = asked("null");
        let text = streamed(&answer(&asked, "00000000000000000000000000000002"), 3);
        assert_eq!(text, include_str!("../fixtures/responses/stream.sse"));
    }

    #[test]
    fn the_body_is_vllms() {
        let asked = asked("\"u\"");
        let text = body(&answer(&asked, "00000000000000000000000000000001"));
        assert_eq!(text, include_str!("../fixtures/responses/body.json"));
    }

    /// Held against what a server sent. The first of its three tokens had no text yet, and no event.
    #[test]
    fn later_answers_are_those_of_a_server() {
        let asked = asked("null");
        let (_, captured) =
            include_str!("../fixtures/responses/stream-0.32.0.http").split_once("\n\n").unwrap();
        let later = Answer {
            shape: Shape::Second,
            id: "resp_a9c4056a76f4a5e4",
            item_digits: "9a1a4d8e3a800dc0",
            message_digits: "",
            created: 1_795_550_936,
            model: "Qwen2.5-0.5B-Instruct",
            tokens: &["ели", r#" forestry.\","#],
            ..answer(&asked, "")
        };
        let text = streamed(&later, 2).replace("\"output_tokens\":2,", "\"output_tokens\":3,");
        assert_eq!(text.replace("\"total_tokens\":11", "\"total_tokens\":12"), captured);
        let asked = self::asked("\"u\"");
        let whole = Answer {
            asked: &asked,
            id: "resp_a9ffc28ef4858941",
            message_digits: "9ef25f04d06f4980",
            tokens: &["(window", " Foster", "副市长"],
            ..later
        };
        let (_, captured) =
            include_str!("../fixtures/responses/body-0.32.0.http").split_once("\n\n").unwrap();
        assert_eq!(body(&whole), captured);
    }

    #[test]
    fn prompts_are_texts_or_items() {
        let tokens = |body: &str| parse(body.as_bytes(), &config(Profile::Vllm0110)).unwrap().prompt_tokens;
        let text = tokens(r#"{"input":"say it again"}"#);
        assert!(text > 0);
        let items = r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"say it again"}]}]}"#;
        assert_eq!(tokens(items), text);
        assert!(tokens(r#"{"input":"say it again","instructions":"be brief"}"#) > text);
    }

    #[test]
    fn limits_and_refusals() {
        let early = |body: &str| parse(body.as_bytes(), &config(Profile::Vllm0110));
        assert_eq!(early(r#"{"input":"hi","max_output_tokens":7}"#).unwrap().max_tokens, 7);
        let filled = early(r#"{"input":"hi","max_output_tokens":7000}"#).unwrap();
        assert_eq!(filled.max_tokens as usize, 100 - filled.prompt_tokens);
        for (body, status, words) in [
            ("{}", 400, "'input'"),
            ("nope", 400, "json_invalid"),
            (r#"{"input":7}"#, 400, "valid string"),
            (r#"{"input":"hi","model":"other"}"#, 404, "`other` does not exist"),
            (r#"{"input":"hi","max_output_tokens":0}"#, 400, "at least 1, got 0"),
            (r#"{"input":"hi","temperature":"hot"}"#, 400, "type_error"),
            (r#"{"input":"hi","previous_response_id":"resp_1"}"#, 404, "'resp_1' not found"),
        ] {
            let refusal = early(body).unwrap_err();
            assert!(refusal.status.as_u16() == status && refusal.body.contains(words), "{}", refusal.body);
        }
    }

    #[test]
    fn later_refusals_are_those_of_a_server() {
        let model = "Qwen2.5-0.5B-Instruct";
        let config = Config { model: model.to_owned(), max_model_len: 4096, ..config(Profile::Vllm0320) };
        for line in include_str!("../fixtures/responses/refusals-0.32.0.txt").lines() {
            let [request, status, body] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let refusal = parse(request.as_bytes(), &config).unwrap_err();
            assert_eq!((refusal.status.as_str(), refusal.body.as_str()), (status, body), "{request}");
        }
    }
}
