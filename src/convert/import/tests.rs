use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const ALL: [Format; 6] = [
    Format::Azure,
    Format::Bailian,
    Format::Burstgpt,
    Format::Guidellm,
    Format::Mooncake,
    Format::VllmTimedTrace,
];

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
