//! vLLM 0.33.0: what its own classes write, for want of a running server. Names and ids differ from the mock's, so the
//! bytes are compared from `created` on, with the model's name made equal.

use std::borrow::Cow;
use std::collections::HashMap;

use tokentape_mock::Profile;
use tokentape_mock::answers::{Answer, Logprob, Output, Token};

use crate::cases::{Case, Kind};
use crate::http::{self, Server};

const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

fn token(text: &'static str, id: u32) -> Output<'static> {
    let near = |text: &'static str, logprob| (Cow::Borrowed(text), logprob);
    let top = vec![near(text, -0.1), near("Hi", -2.5)];
    let logprob = Logprob { token: text.into(), logprob: -0.1, top };
    Output { choice: 0, tokens: vec![Token { text: text.into(), id, logprob: Some(logprob) }] }
}

/// What can be equal: after the ids, without the digest of the configuration.
fn comparable(text: &str) -> String {
    let text = text.replace("Qwen2.5-0.5B-Instruct", MODEL);
    let (_, text) = text.split_once("\"model\":").unwrap();
    let digest = text.find("\"vllm-0.33.0-").map(|at| at + "\"vllm-0.33.0-".len());
    digest.map_or_else(|| text.to_owned(), |at| format!("{}X{}", &text[..at], &text[at + 8..]))
}

#[test]
fn the_events_of_0_33_are_what_its_classes_write() {
    let rendered = crate::capture("vllm-0.33.0/rendered.txt");
    let rendered: HashMap<&str, &str> =
        rendered.split("## ").filter_map(|part| part.trim().split_once('\n')).collect();
    let ask = |path: &'static str, fields: &str| {
        let script = Answer { outputs: vec![token("Hello", 9906), token(" world", 1917)] };
        let kind = Kind::Rendered(Profile::Vllm0330);
        let server = Server::start(kind, Some(script));
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"a"}}],"prompt":[1,2,3,4,5],"max_tokens":2,{fields}}}"#
        );
        let response =
            http::parse(&server.exchange(&Case::new("rendered", kind, "POST", path).body(body)), true);
        response.chunks.iter().map(|chunk| chunk.trim_end().to_owned()).collect::<Vec<String>>()
    };
    let (chat, completions) = ("/v1/chat/completions", "/v1/completions");
    let plain = ask(chat, r#""stream":true"#);
    let usage = ask(
        completions,
        r#""stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}"#,
    );
    let texts = ask(completions, r#""stream":true"#);
    for (name, event) in [
        ("chat role chunk", &plain[0]),
        ("chat content chunk", &plain[1]),
        ("chat finish chunk (no include_usage), length", &plain[2]),
        ("chat content chunk return_token_ids", &ask(chat, r#""stream":true,"return_token_ids":true"#)[1]),
        (
            "chat content chunk logprobs top2",
            &ask(chat, r#""stream":true,"logprobs":true,"top_logprobs":2"#)[1],
        ),
        ("completions content chunk", &texts[0]),
        ("completions final chunk no include_usage", &texts[1]),
        ("completions chunk continuous usage", &usage[0]),
        ("completions usage chunk", &usage[2]),
        (
            "completions first chunk return_token_ids",
            &ask(completions, r#""stream":true,"return_token_ids":true"#)[0],
        ),
        ("completions logprobs=1 chunk", &ask(completions, r#""stream":true,"logprobs":1"#)[0]),
        ("completions non-stream", &ask(completions, r#""n":1"#)[0]),
    ] {
        assert_eq!(comparable(event), comparable(rendered[name]), "{name}");
    }
}

/// The four ways of naming the role, and the finish in an event of its own.
#[test]
fn roles_and_finishes_as_asked() {
    use tokentape_mock::RoleChunk::{Absent, FirstToken, Merged, OnAccept};
    let events = |kind| {
        let script = Answer { outputs: vec![token("a", 1), token("b", 2)] };
        let server = Server::start(kind, Some(script));
        let body = r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":2,"stream":true}"#;
        let case = Case::new("roles", kind, "POST", "/v1/chat/completions").body(body);
        let chunks = http::parse(&server.exchange(&case), true).chunks;
        let delta = |chunk: &String| {
            let (_, delta) = chunk.split_once("\"delta\":")?;
            Some(delta[..=delta.find('}')?].to_owned())
        };
        chunks.iter().filter_map(delta).collect::<Vec<String>>()
    };
    let role = r#"{"role":"assistant","content":""}"#;
    let (a, b) = (r#"{"content":"a"}"#, r#"{"content":"b"}"#);
    assert_eq!(events(Kind::Roles(FirstToken)), [role, a, b]);
    assert_eq!(events(Kind::Roles(OnAccept)), [role, a, b]);
    assert_eq!(events(Kind::Roles(Merged)), [r#"{"role":"assistant","content":"a"}"#, b]);
    assert_eq!(events(Kind::Roles(Absent)), [a, b]);
    let openai = [r#"{"role":"assistant","content":"","refusal":null}"#, a, b, "{}"];
    assert_eq!(events(Kind::Rendered(Profile::OpenAi)), openai);
}
