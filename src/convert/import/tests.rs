use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const ALL: [Format; 14] = [
    Format::Aiperf,
    Format::Azure,
    Format::Bailian,
    Format::Burstgpt,
    Format::EvalscopeLines,
    Format::EvalscopeTrace,
    Format::Guidellm,
    Format::Jsonl,
    Format::Mooncake,
    Format::OpenaiBatch,
    Format::RawPayload,
    Format::Sharegpt,
    Format::VllmCustom,
    Format::VllmTimedTrace,
];

/// A line of each format that holds texts.
const TEXTS: [(Format, &str); 9] = [
    (Format::Aiperf, r#"{"text": "hi", "timestamp": 5, "output_length": 3, "session_id": "s"}"#),
    (
        Format::Aiperf,
        r#"{"session_id": "s", "turns": [{"text": "a", "delay": 1.5}, {"texts": ["b"], "role": "user"}]}"#,
    ),
    (Format::EvalscopeLines, r#"[{"role": "user", "content": "hi"}]"#),
    (
        Format::EvalscopeTrace,
        r#"{"body": {"prompt": "a"}, "timestamp": "2026-01-31T12:00:00Z", "headers": {"k": "v"}}"#,
    ),
    (Format::Jsonl, r#"{"offset_ns": 7, "path": "/v1/x", "body": [1], "session": {"id": "s", "turn": 0}}"#),
    (Format::OpenaiBatch, r#"{"custom_id": "1", "method": "POST", "url": "/v1/x", "body": {"input": "a"}}"#),
    (Format::RawPayload, r#"{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}"#),
    (
        Format::Sharegpt,
        r#"[{"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}]"#,
    ),
    (Format::VllmCustom, r#"{"prompt": "hi", "output_tokens": 2}"#),
];

#[test]
fn a_true_line_of_texts_is_read() {
    for (format, line) in TEXTS {
        let requests = import(format, Params::default(), line.as_bytes(), Some(&TOKENIZER)).unwrap();
        assert!(!requests.is_empty(), "{line}");
    }
}

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::embedded().unwrap());

const TRACE: &str = r#"{"timestamp": 5, "input_length": 20, "output_length": 3, "hash_ids": [7, 8]}
{"timestamp": 9, "input_length": 40, "output_length": 4, "hash_ids": [7, 9]}
{"timestamp": 9, "input_length": 8, "output_length": 5}"#;

fn imported(seed: u64, bytes: &str) -> Vec<Request> {
    let params = Params { seed, block_tokens: Some(16), ..Params::default() };
    import(Format::Mooncake, params, bytes.as_bytes(), Some(&TOKENIZER)).unwrap()
}

/// Every imported tape rests on these bytes.
#[test]
fn bodies_are_golden() {
    let mut hasher = blake3::Hasher::new();
    for request in imported(0, TRACE) {
        hasher.update(&request.body);
    }
    assert_eq!(&hasher.finalize().to_hex()[..16], "031b5de33f3cb022");
}

#[test]
fn equal_hashes_are_equal_blocks_of_one_seed() {
    let prompts = |seed| -> Vec<Vec<u32>> {
        let prompt = |request: Request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            TOKENIZER.encode_plain(body["prompt"].as_str().unwrap()).unwrap()
        };
        imported(seed, TRACE).into_iter().map(prompt).collect()
    };
    let (zero, one) = (prompts(0), prompts(1));
    assert_eq!(zero[0][..16], zero[1][..16]);
    assert_ne!(zero[0][16..], zero[1][16..20]);
    assert_ne!(zero[0][..16], one[0][..16]);
    // What no hash covers is the request's own, also behind a shared block.
    assert_ne!(zero[1][32..], zero[2][..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), place in 0..ALL.len()) {
            drop(import(ALL[place], Params::default(), &bytes, Some(&TOKENIZER)));
    }

    /// A true line of texts with a byte of it changed, and cut short.
    #[test]
    fn no_damaged_text_makes_it_panic(place in 0..TEXTS.len(), at in 0_usize..200, byte: u8, end in 0_usize..200) {
        let (format, line) = TEXTS[place];
        let mut bytes = line.as_bytes().to_vec();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - end % length / 4);
        drop(import(format, Params::default(), &bytes, Some(&TOKENIZER)));
    }

    /// A true trace with a byte of it changed, and cut short.
    #[test]
    fn no_damage_makes_it_panic(at in 0..TRACE.len(), byte: u8, end in 0..TRACE.len()) {
        let mut bytes = TRACE.as_bytes().to_vec();
        bytes[at] = byte;
        bytes.truncate(end);
            for format in [Format::Guidellm, Format::Mooncake, Format::VllmTimedTrace] {
            drop(import(format, Params::default(), &bytes, Some(&TOKENIZER)));
        }
    }
}
