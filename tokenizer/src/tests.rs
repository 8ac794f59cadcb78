//! The tokenizer as a whole, on the embedded files.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What `transformers` 4.57.1 makes of the same chats with the same files.
const CHATS: &str = include_str!("../../fixtures/tokenizer/chats.json");

fn embedded() -> &'static Tokenizer {
    static EMBEDDED: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    EMBEDDED.get_or_init(|| Tokenizer::embedded().unwrap())
}

#[test]
fn the_embedded_tokenizer_stays_what_it_is() {
    let tokenizer = embedded();
    assert_eq!(tokenizer.name(), "embedded");
    assert_eq!(tokenizer.digest(), "457e5dca1f8c3fa1d324a6b09645dcf74a9acd95e0cd9911b7ab20a8d62c449b");
    assert_eq!(tokenizer.vocab_size(), 8195);
    assert!(tokenizer.pieces.is_some(), "its form allows the short cut");
    assert_eq!(tokenizer.words().len(), 5004);
    assert_eq!(tokenizer.words().iter().filter(|word| word.opens).count(), 1217);
    let first = &tokenizer.words()[0];
    assert_eq!((first.id, first.text.as_str(), first.opens), (262, " s", true));
}

#[test]
fn chats_render_and_count_as_transformers_has_them() {
    let chats: Vec<Value> = serde_json::from_str(CHATS).unwrap();
    assert!(!chats.is_empty());
    for chat in chats {
        let prompt = chat["add_generation_prompt"].as_bool().unwrap();
        let rendered = embedded().render_chat(&chat["messages"], prompt).unwrap();
        assert_eq!(rendered, chat["rendered"].as_str().unwrap());
        assert_eq!(json!(embedded().encode(&rendered).unwrap()), chat["ids"]);
        if prompt {
            assert_eq!(
                embedded().count_chat(&chat["messages"]).unwrap(),
                chat["ids"].as_array().unwrap().len()
            );
        }
    }
}

#[test]
fn a_text_survives_encoding_and_decoding() {
    let text = "Twelve o'clock: naïve café, 北京 🦀\n\tend.";
    let ids = embedded().encode(text).unwrap();
    assert_eq!(embedded().decode(&ids).unwrap(), text);
    assert_eq!(embedded().count(text).unwrap(), ids.len());
    assert_eq!(embedded().decode(&embedded().encode("a<|im_end|>").unwrap()).unwrap(), "a<|im_end|>");
}

#[test]
fn ordinary_tokens_are_those_of_the_vocabulary_alone() {
    assert!(embedded().is_ordinary(0));
    assert!(embedded().is_ordinary(8191));
    for id in [8192, 8194, 8195, u32::MAX] {
        assert!(!embedded().is_ordinary(id), "{id}");
    }
}

#[test]
fn a_folder_without_a_template_counts_but_does_not_chat() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), Source::embedded().json).unwrap();
    let tokenizer = Tokenizer::load(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(tokenizer.digest(), embedded().digest());
    assert!(!tokenizer.has_chat_template() && embedded().has_chat_template());
    assert!(matches!(tokenizer.count_chat(&json!([])), Err(Error::NoTemplate { .. })));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(Tokenizer::load(folder.path().to_str().unwrap()), Err(Error::Parse { .. })));
}

/// The embedded vocabulary behind another pre-tokenizer.
fn pre_tokenized(steps: &Value) -> Tokenizer {
    let mut json: Value = serde_json::from_slice(&Source::embedded().json).unwrap();
    json["pre_tokenizer"]["pretokenizers"] = steps.clone();
    let source = Source { json: json.to_string().into_bytes(), ..Source::embedded() };
    Tokenizer::from_source(source).unwrap()
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex})
}

/// One tokenizer for each expression of which the short cut is proved, and one with GPT-2's built-in expression.
fn proved() -> &'static [Tokenizer] {
    static PROVED: std::sync::OnceLock<Vec<Tokenizer>> = std::sync::OnceLock::new();
    PROVED.get_or_init(|| {
        words::LETTER_RUNS
            .into_iter()
            .map(|pattern| pre_tokenized(&json!([split(pattern), byte_level(false)])))
            .chain([pre_tokenized(&json!([byte_level(true)]))])
            .collect()
    })
}

/// Cut at spaces alone, or by an expression that reaches over a space: the short cut is not proved.
#[test]
fn without_the_proof_words_are_found_and_counted_all_the_same() {
    let tokenizer = pre_tokenized(&json!([split(" ?[^ ]+| +"), byte_level(false)]));
    assert!(tokenizer.pieces.is_none());
    assert!(tokenizer.words().len() > 2000);
    let [a, b] = [&tokenizer.words()[7], &tokenizer.words()[1700]];
    assert_eq!(tokenizer.encode(&format!("{}{}{}", a.text, b.text, b.text)).unwrap(), [a.id, b.id, b.id]);

    let mixed =
        pre_tokenized(&json!([split("[a-z]+ [a-z]+"), split(words::LETTER_RUNS[0]), byte_level(false)]));
    assert!(mixed.pieces.is_none());
}

proptest! {
    #[test]
    fn the_short_cut_gives_what_the_tokenizers_crate_gives(
        text in r"([ -~\n\r\t]|[a-zA-Z]{1,9}| [a-z]{1,9}|  |'s|'LL|é|e\u{301}|\u{a0}|北|🦀|[0-9]{1,4}|<\|im_end\|>|<\|im_|[a-z]{1,4}\n|\n[A-Z]|\n<\|im_start\|>){0,40}"
    ) {
        for tokenizer in proved() {
            prop_assert!(tokenizer.pieces.is_some());
            prop_assert_eq!(tokenizer.encode(&text).unwrap(), tokenizer.encode_plain(&text).unwrap());
        }
    }

    #[test]
    fn words_are_one_token_each_in_any_company(
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 1..60)
    ) {
        let words: Vec<&Word> = picks.iter().map(|pick| pick.get(embedded().words())).collect();
        let text: String = words.iter().map(|word| word.text.as_str()).collect();
        let ids: Vec<u32> = words.iter().map(|word| word.id).collect();
        prop_assert_eq!(&embedded().encode_plain(&text).unwrap(), &ids);
        prop_assert_eq!(embedded().encode(&text).unwrap(), ids);
        if words[0].opens {
            prop_assert_eq!(embedded().encode_plain(text.trim_start()).unwrap().len(), words.len());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        prop_assert_eq!(embedded().count(&text).unwrap(), embedded().encode_plain(&text).unwrap().len());
    }
}
