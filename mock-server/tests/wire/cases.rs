//! The requests that the captures answer, and the captures that the mock does not equal.

use tokentape_mock::{Profile, RoleChunk};

/// How the captured server was set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// vLLM 0.11.0, `Qwen2.5-0.5B-Instruct`.
    Qwen0110,
    /// The same model on vLLM 0.32.0.
    Qwen0320,
    /// vLLM 0.32.0 with a tiny model that has an alias, with `--enable-request-id-headers`.
    Tiny,
    /// The same with an API key, a reasoning and a tool parser, and `--enable-per-request-metrics`.
    TinyParsed,
    /// The first model as another profile.
    Rendered(Profile),
    /// The first model, with the role named otherwise.
    Roles(RoleChunk),
    /// The first model, paced by an engine that runs one sequence at a time.
    OneSeat,
}

/// What the mock is told to say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Script {
    /// Nothing.
    None,
    /// The capture's outputs.
    Captured,
    /// The capture's tokens, each an output of its own.
    Apart,
    /// These tokens, each an output of its own.
    Tokens(&'static [(&'static str, u32)]),
}

/// A capture, and the request that it answers.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) capture: &'static str,
    pub(crate) server: Kind,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: String,
    pub(crate) script: Script,
}

impl Case {
    pub(crate) fn new(capture: &'static str, server: Kind, method: &'static str, path: &'static str) -> Self {
        Self { capture, server, method, path, headers: Vec::new(), body: String::new(), script: Script::None }
    }

    /// Whether the capture still has the lengths of its chunks.
    pub(crate) fn is_framed(&self) -> bool {
        self.capture.rsplit('.').next() == Some("raw")
    }

    /// Whether the request asks for the connection to end: all did that keep their framing, but for two.
    pub(crate) fn closes(&self) -> bool {
        self.is_framed() && !self.capture.contains("/keepalive_")
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body(self, body: impl Into<String>) -> Self {
        let case = self.header("content-type", "application/json");
        Self { body: body.into(), ..case }
    }

    fn says(self, script: Script) -> Self {
        Self { script, ..self }
    }

    fn with_key(self) -> Self {
        self.header("authorization", "Bearer secret")
    }
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Captures that the mock's answer does not equal, each with the reason.
pub(crate) const DIFFERENT: &[(&str, &str)] = &[
    (
        "vllm-0.11.0/get_metrics.http",
        "names, types, labels and buckets are equal, which a test of its own holds, but for `python_*`, of which the mock has none; values cannot be",
    ),
    ("vllm-0.32.0/get_metrics.http", "as above"),
    ("vllm-0.32.0-cases/metrics.raw", "as above"),
    ("vllm-0.32.0-cases/noauth_metrics_head.raw", "as above; the capture was cut off"),
    ("vllm-0.11.0/get_version.http", "the captured build calls itself 0.11.0.post2; the mock says 0.11.0"),
    (
        "vllm-0.32.0-cases/http10.raw",
        "vLLM answers an HTTP/1.0 request in HTTP/1.1 with chunks, which HTTP/1.0 does not know; the mock sends the body until the connection ends",
    ),
    ("vllm-0.32.0-cases/overflow_n.raw", "a full queue is the engine's affair: the wire has none"),
    (
        "vllm-0.32.0-cases/tokenizer_info.raw",
        "the endpoint describes an object of vLLM's own code; the mock has no such endpoint, as vLLM without its flag",
    ),
];

/// Every capture that the mock equals.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = qwen(Kind::Qwen0110);
    cases.extend(qwen(Kind::Qwen0320));
    cases.extend(tiny_answers());
    cases.extend(tiny_service());
    cases.extend(tiny_refusals());
    cases.extend(tiny_parsed());
    cases
}

/// The same requests were put to both versions.
fn qwen(server: Kind) -> Vec<Case> {
    let first = matches!(server, Kind::Qwen0110);
    let name = |name: &str| -> &'static str {
        let folder = if first { "vllm-0.11.0" } else { "vllm-0.32.0" };
        format!("{folder}/{name}.http").leak()
    };
    let model = r#""model":"Qwen2.5-0.5B-Instruct""#;
    let hello = r#""messages":[{"role":"user","content":"hello"}]"#;
    let get = |capture: &str, path| Case::new(name(capture), server, "GET", path);
    let post = |capture: &str, path, fields: String| {
        Case::new(name(capture), server, "POST", path).body(format!("{{{model},{fields}}}"))
    };
    let chat = |capture: &str, fields: &str| post(capture, CHAT, format!("{hello},{fields}"));
    let says = |capture: &str, fields: &str| chat(capture, fields).says(Script::Captured);
    let completes =
        |capture: &str, fields: &str| post(capture, COMPLETIONS, fields.to_owned()).says(Script::Captured);
    let usage = r#""stream":true,"stream_options":{"include_usage":true}"#;
    let continuous = r#""stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}"#;
    let ids = vec!["7"; 5001].join(",");
    let mut cases = vec![
        get("get_health", "/health"),
        get("get_ping", "/ping"),
        get("get_load", "/load"),
        get("get_models", "/v1/models"),
        get("get_notfound", "/nope"),
        get("get_server_info", "/server_info"),
        get("err_method", CHAT),
        says("post_chat", r#""max_tokens":4"#),
        says("post_chat_stream", r#""max_tokens":5,"stream":true"#),
        says("post_chat_stream_usage", &format!(r#""max_tokens":5,{usage}"#)),
        says("post_chat_stream_usage_continuous", &format!(r#""max_tokens":3,{continuous}"#)),
        says("post_chat_stream_return_token_ids", r#""max_tokens":2,"stream":true,"return_token_ids":true"#),
        says(
            "post_chat_stream_n2_logprobs",
            r#""max_tokens":2,"stream":true,"n":2,"logprobs":true,"top_logprobs":2"#,
        ),
        says("post_chat_stream_max_completion", r#""max_completion_tokens":2,"stream":true"#)
            .header("x-request-id", "abc-123"),
        completes("post_completions_stream", r#""prompt":"hello","max_tokens":5,"stream":true"#),
        completes("post_completions_stream_usage", &format!(r#""prompt":"hello","max_tokens":5,{usage}"#)),
        completes(
            "post_completions_stream_logprobs",
            r#""prompt":"hello","max_tokens":3,"stream":true,"logprobs":2"#,
        ),
        completes("post_completions_tokens", r#""prompt":[1,2,3],"max_tokens":4,"logprobs":2"#),
        completes("post_completions_batch", r#""prompt":["hello"," world"],"max_tokens":2"#),
        post("post_tokenize", "/tokenize", r#""prompt":"hello world""#.to_owned()),
        post("post_detokenize", "/detokenize", r#""tokens":[14990,1879]"#.to_owned()),
        post("post_tokenize_chat", "/tokenize", format!(r#"{hello},"return_token_strs":true"#)),
        chat("err_max_tokens_over_context", r#""max_tokens":99999"#),
        chat("err_max_tokens_zero", r#""max_tokens":0"#),
        chat("err_temperature", r#""temperature":-1"#),
        post("err_empty_messages", CHAT, r#""messages":[]"#.to_owned()),
        post(
            "err_prompt_over_context",
            CHAT,
            format!(r#""messages":[{{"role":"user","content":"{}"}}]"#, "hello ".repeat(6000)),
        ),
        post(
            "err_prompt_over_context_stream",
            COMPLETIONS,
            format!(r#""prompt":[{ids}],"max_tokens":5,"stream":true"#),
        ),
    ];
    // These repeat the whole body in their text, or are no JSON.
    let raw = |capture: &str, body: String| Case::new(name(capture), server, "POST", CHAT).body(body);
    cases.extend([
        raw("err_json", r#"{"model":"#.to_owned()),
        raw("err_missing_messages", format!("{{{model}}}")),
        raw("err_model", format!(r#"{{"model":"nope",{hello}}}"#)),
        raw(
            "err_stream_options_without_stream",
            format!(r#"{{{model},{hello},"stream_options":{{"include_usage":true}}}}"#),
        ),
        Case::new(name("err_unsupported_media"), server, "POST", CHAT).header("content-type", "text/plain"),
    ]);
    if !first {
        cases.push(get("get_version", "/version"));
    }
    cases
}

fn tiny(capture: &'static str, method: &'static str, path: &'static str) -> Case {
    let capture = format!("vllm-0.32.0-cases/{capture}.raw").leak();
    Case::new(capture, Kind::Tiny, method, path)
}

const MESSAGES: &str = r#""messages":[{"role":"user","content":"Hello world"}]"#;

fn tiny_answers() -> Vec<Case> {
    let chat = |capture, fields: &str| {
        let body = format!(r#"{{"model":"tiny-llama",{MESSAGES},{fields}}}"#);
        tiny(capture, "POST", CHAT).body(body).says(Script::Captured)
    };
    let completes = |capture, fields: &str| {
        let body = format!(r#"{{"model":"tiny-llama","prompt":"Hello world",{fields}}}"#);
        tiny(capture, "POST", COMPLETIONS).body(body).says(Script::Captured)
    };
    let other = |capture, path, body: &str| tiny(capture, "POST", path).body(body).says(Script::Captured);
    let usage = r#""stream_options":{"include_usage":true}"#;
    let continuous = r#""stream_options":{"include_usage":true,"continuous_usage_stats":true}"#;
    let ids = vec!["5"; 1020].join(",");
    vec![
        chat("chat_alias", r#""model":"alias-2","max_tokens":1"#),
        chat("chat_maxcompletion", r#""max_tokens":9,"max_completion_tokens":2"#),
        other("chat_nomodel", CHAT, &format!(r#"{{{MESSAGES},"max_tokens":1}}"#)),
        chat("chat_nonstream", r#""max_tokens":4"#),
        chat("chat_nonstream_logprobs", r#""max_tokens":2,"logprobs":true,"top_logprobs":1"#),
        chat("chat_nonstream_n2", r#""max_tokens":2,"n":2"#),
        chat("chat_nonstream_tokenids", r#""max_tokens":2,"return_token_ids":true"#),
        chat("chat_stream", r#""max_tokens":4,"stream":true"#),
        chat("chat_stream_cont_usage", &format!(r#""max_tokens":3,"stream":true,{continuous}"#)),
        chat(
            "chat_stream_cont_usage_only",
            r#""max_tokens":2,"stream":true,"stream_options":{"continuous_usage_stats":true}"#,
        ),
        chat(
            "chat_stream_interval",
            &format!(r#""max_tokens":10,"stream":true,"stream_interval":4,{continuous}"#),
        )
        .says(Script::Apart),
        chat("chat_stream_logprobs", r#""max_tokens":2,"stream":true,"logprobs":true,"top_logprobs":2"#),
        chat("chat_stream_max1", r#""max_tokens":1,"stream":true"#),
        chat("chat_stream_n2", &format!(r#""max_tokens":3,"stream":true,"n":2,{usage}"#)),
        chat(
            "chat_stream_stopid",
            &format!(r#""max_tokens":9,"stream":true,"stop_token_ids":[676],{usage}"#),
        )
        .says(Script::Tokens(&[("", 1), ("", 2), ("", 3), ("x", 676), ("y", 4)])),
        chat("chat_stream_token_ids", r#""max_tokens":3,"stream":true,"return_token_ids":true"#),
        chat("chat_stream_usage", &format!(r#""max_tokens":4,"stream":true,{usage}"#)),
        completes("comp_nonstream", r#""max_tokens":3"#),
        completes("comp_nonstream_default", r#""temperature":0"#),
        completes("comp_nonstream_logprobs", r#""max_tokens":2,"logprobs":1"#),
        completes("comp_stream", r#""max_tokens":3,"stream":true"#),
        completes("comp_stream_cont", &format!(r#""max_tokens":3,"stream":true,{continuous}"#)),
        completes("comp_stream_echo", r#""max_tokens":2,"stream":true,"echo":true"#)
            .says(Script::Tokens(&[("", 1), ("", 2)])),
        completes("comp_stream_logprobs", r#""max_tokens":2,"stream":true,"logprobs":1"#),
        completes("comp_stream_tokenids", r#""max_tokens":2,"stream":true,"return_token_ids":true"#),
        completes("comp_stream_usage", &format!(r#""max_tokens":3,"stream":true,{usage}"#)),
        other(
            "comp_stream_2prompts",
            COMPLETIONS,
            &format!(r#"{{"prompt":["Hello","world"],"max_tokens":2,"stream":true,{usage}}}"#),
        ),
        other("comp_stream_tokprompt", COMPLETIONS, r#"{"prompt":[5,6,7],"max_tokens":2,"stream":true}"#),
        other("err_ctxlen_tok2", COMPLETIONS, &format!(r#"{{"prompt":[{ids}],"max_tokens":10}}"#)),
        chat("reqid_body", r#""max_tokens":1,"request_id":"body-id-9""#),
        chat("xreqid", r#""max_tokens":1"#).header("x-request-id", "my-id-123"),
    ]
}

fn tiny_service() -> Vec<Case> {
    let post = |capture, path, body: &str| tiny(capture, "POST", path).body(body);
    vec![
        post("tokenize", "/tokenize", r#"{"prompt":"Hello world"}"#),
        post("tokenize_chat", "/tokenize", &format!("{{{MESSAGES}}}")),
        post("tokenize_strs", "/tokenize", r#"{"prompt":"Hello world","return_token_strs":true}"#),
        post("detokenize", "/detokenize", r#"{"tokens":[5,6,7]}"#),
        tiny("err_404", "GET", "/nope"),
        tiny("err_405", "GET", CHAT),
        tiny("options_chat", "OPTIONS", CHAT),
        tiny("head_health", "HEAD", "/health"),
        tiny("health", "GET", "/health"),
        tiny("load", "GET", "/load"),
        tiny("models", "GET", "/v1/models"),
        tiny("ping", "GET", "/ping"),
        tiny("version", "GET", "/version"),
    ]
}

fn tiny_refusals() -> Vec<Case> {
    let raw = |capture, path, body: String| tiny(capture, "POST", path).body(body);
    let chat = |capture, fields: &str| {
        raw(capture, CHAT, format!(r#"{{"model":"tiny-llama",{MESSAGES},{fields}}}"#))
    };
    let completes = |capture, fields: &str| raw(capture, COMPLETIONS, format!("{{{fields}}}"));
    let long = "Hello world ".repeat(2000);
    let ids = vec!["5"; 2000].join(",");
    let tool = r#"{"type":"function","function":{"name":"get_weather","parameters":{"type":"object"}}}"#;
    vec![
        raw("err_badjson", CHAT, "{nope".to_owned()),
        raw("err_emptybody", CHAT, String::new()),
        tiny("err_ct", "POST", CHAT).header("content-type", "text/plain"),
        completes("err_comp_emptyprompt", r#""prompt":"""#),
        completes("err_comp_noprompt", r#""model":"tiny-llama""#),
        completes("err_comp_maxtok0", r#""prompt":"x","max_tokens":0"#),
        completes("err_comp_model404", r#""model":"nope","prompt":"x""#),
        completes("err_comp_tokoov", r#""prompt":[999999],"max_tokens":1"#),
        completes("err_ctxlen_comp", &format!(r#""prompt":"{long}""#)),
        completes("err_ctxlen_tok", &format!(r#""prompt":[{ids}],"max_tokens":1"#)),
        raw("err_ctxlen", CHAT, format!(r#"{{"messages":[{{"role":"user","content":"{long}"}}]}}"#)),
        raw("err_emptymessages", CHAT, r#"{"messages":[]}"#.to_owned()),
        raw("err_nomessages", CHAT, r#"{"model":"tiny-llama"}"#.to_owned()),
        raw("err_msgtype", CHAT, r#"{"messages":"hi"}"#.to_owned()),
        raw("err_role", CHAT, r#"{"messages":[{"content":"x"}]}"#.to_owned()),
        raw("err_model404", CHAT, format!(r#"{{"model":"nope",{MESSAGES}}}"#)),
        raw("err_model404_stream", CHAT, format!(r#"{{"model":"nope",{MESSAGES},"stream":true}}"#)),
        chat("err_maxcompbig", r#""max_completion_tokens":100000"#),
        chat("err_maxtokbig", r#""max_tokens":100000"#),
        chat("err_maxtok0", r#""max_tokens":0"#),
        chat("err_maxtokneg", r#""max_tokens":-1"#),
        chat("err_maxtokstr", r#""max_tokens":"abc""#),
        chat("err_mintok", r#""max_tokens":2,"min_tokens":5"#),
        chat("err_n0", r#""n":0"#),
        chat("err_stop_empty", r#""stop":"""#),
        chat("err_streamopts", r#""stream_options":{"include_usage":true}"#),
        chat("err_temp", r#""temperature":-1"#),
        chat("err_temp3", r#""temperature":3"#),
        chat("err_topp", r#""top_p":0"#),
        chat("err_toplogprobs", r#""top_logprobs":2"#),
        chat("err_toplogprobs50", r#""logprobs":true,"top_logprobs":50"#),
        chat("err_toolauto", &format!(r#""tools":[{tool}],"tool_choice":"auto""#)),
        chat("err_toolsempty", r#""tools":[]"#),
    ]
}

fn tiny_parsed() -> Vec<Case> {
    let parsed = |capture, method, path| Case { server: Kind::TinyParsed, ..tiny(capture, method, path) };
    let get = |capture, path| parsed(capture, "GET", path);
    let chat = |capture, fields: &str| {
        let messages = r#""messages":[{"role":"user","content":"abcd"}]"#;
        let body = format!("{{{messages},{fields}}}");
        parsed(capture, "POST", CHAT).body(body).with_key().says(Script::Captured)
    };
    let completes = |capture, fields: &str| {
        let body = format!(r#"{{"prompt":"abc",{fields}}}"#);
        parsed(capture, "POST", COMPLETIONS).body(body).with_key().says(Script::Captured)
    };
    let usage = r#""stream":true,"stream_options":{"include_usage":true}"#;
    let tools = r#""tools":[{"type":"function","function":{"name":"get_weather"}}]"#;
    let named = format!(r#"{tools},"tool_choice":{{"type":"function","function":{{"name":"get_weather"}}}}"#);
    let required = format!(r#"{tools},"tool_choice":"required""#);
    let ooo = Script::Tokens(&[("", 1), ("o", 2), ("", 1), ("o", 2), ("", 1), ("o", 2), ("", 1)]);
    vec![
        get("badauth", "/v1/models").header("authorization", "Bearer wrong"),
        parsed("noauth", "POST", CHAT).body("{}"),
        get("noauth_models", "/v1/models"),
        get("noauth_version", "/version"),
        get("noauth_health", "/health"),
        parsed("noauth_tokenize", "POST", "/tokenize").body(r#"{"prompt":"hello"}"#),
        get("keepalive_json", "/v1/models").with_key(),
        get("with_origin", "/v1/models").with_key().header("origin", "http://example.com"),
        parsed("cors_preflight", "OPTIONS", CHAT)
            .header("origin", "http://example.com")
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization"),
        chat("keepalive_stream", r#""max_tokens":2,"stream":true"#),
        chat("per_req_metrics", r#""max_tokens":6"#),
        chat("per_req_metrics_stream", &format!(r#""max_tokens":6,{usage}"#)),
        completes("comp_metrics_stream", &format!(r#""max_tokens":3,{usage}"#)),
        chat("stop_chat_s", "\"max_tokens\":9,\"stream\":true,\"stop\":\"\u{fffd}3\"")
            .says(Script::Tokens(&[("3", 1), ("", 2), ("\u{fffd}3", 3), ("x", 4)])),
        completes("stop_s", r#""max_tokens":8,"stream":true,"logprobs":0"#),
        completes("stop_str_s", r#""max_tokens":9,"stream":true,"stop":["ooo"]"#).says(ooo),
        completes("stop_str_incl", r#""max_tokens":9,"stop":["ooo"],"include_stop_str_in_output":true"#)
            .says(ooo),
        chat("tool_auto_s", &format!(r#""max_tokens":6,"stream":true,{tools}"#)),
        chat("tool_named_n", &format!(r#""max_tokens":60,{named}"#)),
        chat("tool_named_s", &format!(r#""max_tokens":60,{usage},{named}"#)),
        chat("tool_required_n", &format!(r#""max_tokens":60,{required}"#)),
        chat("tool_required_s", &format!(r#""max_tokens":60,{usage},{required}"#)),
    ]
}
