use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tokentape_tokenizer::Tokenizer;

use super::*;
use crate::timing::Timing;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let timing = Timing::fixed(0, 0);
    let tokenizer = Arc::new(Tokenizer::embedded().unwrap());
    Config { max_model_len: 4096, ..Config::new("m", tokenizer, timing) }
});

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| Vocabulary::of(&CONFIG.tokenizer));

fn chat(body: &str) -> Result<Request, Refusal> {
    parse(Endpoint::Chat, body.as_bytes(), &CONFIG, *VOCABULARY)
}

fn completions(body: &str) -> Result<Request, Refusal> {
    parse(Endpoint::Completions, body.as_bytes(), &CONFIG, *VOCABULARY)
}

fn message(refused: Result<Request, Refusal>) -> (u16, String) {
    let refusal = refused.unwrap_err();
    let body: Value = serde_json::from_str(&refusal.body).unwrap();
    assert_eq!(body["error"]["code"], refusal.status.as_u16());
    (refusal.status.as_u16(), body["error"]["message"].as_str().unwrap().to_owned())
}

#[test]
fn limits_and_their_defaults() {
    let hello = r#""messages":[{"role":"user","content":"hello"}]"#;
    assert_eq!(chat(&format!("{{{hello}}}")).unwrap().max_tokens[0], Config::CHAT_MAX_TOKENS);
    let both = format!(r#"{{{hello},"max_tokens":3,"max_completion_tokens":5,"ignore_eos":true}}"#);
    assert_eq!(chat(&both).unwrap().max_tokens[0], 5);
    assert_eq!(completions(r#"{"prompt":[1]}"#).unwrap().max_tokens[0], 16);
    let both = r#"{"prompt":[1],"max_tokens":3,"max_completion_tokens":5}"#;
    assert_eq!(completions(both).unwrap().max_tokens[0], 3);
    assert_eq!(completions(r#"{"prompt":[1],"max_tokens":4095}"#).unwrap().max_tokens[0], 4095);
    let (_, told) = message(completions(r#"{"prompt":[1],"max_tokens":4096}"#));
    assert!(told.starts_with("This model's maximum context length is 0 tokens."));
    let (_, told) = message(completions(r#"{"prompt":[1],"max_tokens":2,"min_tokens":5}"#));
    assert_eq!(told, "min_tokens must be less than or equal to max_tokens=2, got 5.");
    assert!(completions(r#"{"prompt":[1],"max_tokens":9223372036854775807}"#).is_err());
}

#[test]
fn prompts_come_in_four_shapes() {
    for prompt in [r#""a""#, r#"["a"]"#, "[7]", "[[7]]"] {
        let request = completions(&format!(r#"{{"prompt":{prompt}}}"#)).unwrap();
        assert_eq!((request.prompts[0].tokens, request.prompts[0].ids.len()), (1, 1), "{prompt}");
    }
    for prompt in [r#""""#, "[]", "null", "7", r#"[1,"a"]"#, "[-1]"] {
        assert_eq!(message(completions(&format!(r#"{{"prompt":{prompt}}}"#))).0, 400, "{prompt}");
    }
}

#[test]
fn faults_of_shape_are_named() {
    assert!(message(chat("{nope")).1.contains("json_invalid"));
    assert!(
        message(chat(r#"{"max_tokens":"abc"}"#))
            .1
            .contains("unable to parse string as an integer', 'input': 'abc'")
    );
    assert!(message(chat("{}")).1.contains("('body', 'messages'), 'msg': 'Field required'"));
    assert!(message(chat(r#"{"messages":"hi"}"#)).1.contains("should be a valid list"));
    let options = r#"{"messages":[{"role":"user"}],"stream_options":{"include_usage":true}}"#;
    assert!(message(chat(options)).1.contains("Stream options can only be defined when `stream=True`."));
    assert_eq!(message(completions(r#"{"prompt":[1],"n":129}"#)).0, 400);
    assert_eq!(message(completions(r#"{"prompt":[1],"n":0}"#)).1, "n must be at least 1, got 0.");
}

#[test]
fn usage_is_told_where_asked() {
    for (options, mode) in [
        ("null", UsageMode::Never),
        ("{}", UsageMode::Never),
        (r#"{"include_usage":true}"#, UsageMode::Last),
        (r#"{"continuous_usage_stats":true}"#, UsageMode::Never),
        (r#"{"include_usage":true,"continuous_usage_stats":true}"#, UsageMode::Continuous),
    ] {
        let body = format!(r#"{{"prompt":[1],"stream":true,"stream_options":{options}}}"#);
        assert_eq!(completions(&body).unwrap().usage, mode, "{options}");
    }
}

proptest! {
    #[test]
    fn never_panics(body: Vec<u8>, chat: bool) {
        let endpoint = if chat { Endpoint::Chat } else { Endpoint::Completions };
        drop(parse(endpoint, &body, &CONFIG, *VOCABULARY));
    }
}
