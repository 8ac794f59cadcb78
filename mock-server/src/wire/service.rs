//! The answers about the server: its models, and what its tokenizer does.

use super::{json_string, push_ids};

/// The model list: one entry for each name, each with an id of its own for its permissions.
pub(crate) fn models(names: &[(&str, String)], root: &str, max_model_len: u32, created: u64) -> String {
    let root = json_string(root);
    let entries: Vec<String> = names
        .iter()
        .map(|(name, permission_id)| {
            let name = json_string(name);
            format!(
                "{{\"id\":{name},\"object\":\"model\",\"created\":{created},\"owned_by\":\"vllm\",\"root\":{root},\
                 \"parent\":null,\"max_model_len\":{max_model_len},\
                 \"permission\":[{{\"id\":\"modelperm-{permission_id}\",\"object\":\"model_permission\",\
                 \"created\":{created},\"allow_create_engine\":false,\"allow_sampling\":true,\
                 \"allow_logprobs\":true,\"allow_search_indices\":false,\"allow_view\":true,\
                 \"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,\"is_blocking\":false}}]}}"
            )
        })
        .collect();
    format!("{{\"object\":\"list\",\"data\":[{}]}}", entries.join(","))
}

/// What `/tokenize` answers; `texts` are the tokens as they stand in the vocabulary, where asked for.
pub(crate) fn tokenized(ids: &[u32], max_model_len: u32, texts: Option<&[String]>) -> String {
    let mut body = format!("{{\"count\":{},\"max_model_len\":{max_model_len},\"tokens\":", ids.len());
    push_ids(&mut body, ids.iter().copied());
    body.push_str(",\"token_strs\":");
    match texts {
        None => body.push_str("null"),
        Some(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| json_string(text)).collect();
            body.push_str(&format!("[{}]", texts.join(",")));
        }
    }
    body.push('}');
    body
}
