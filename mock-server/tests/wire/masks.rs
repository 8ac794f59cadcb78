//! What cannot be equal is made equal: ids (their lengths are kept), times, and the digest of a server's configuration.

use crate::http::Response;

pub(crate) fn masked(response: &Response) -> Response {
    let chunks: Vec<String> = response.chunks.iter().map(|chunk| mask(chunk)).collect();
    let times = chunks.iter().any(|chunk| chunk.contains("\"metrics\":{"));
    let head = response.head.iter().map(|line| match line.split_once(": ") {
        Some(("date", _)) => "date: X".to_owned(),
        // Measured times have as many digits as they happen to have.
        Some(("content-length", _)) if times => "content-length: X".to_owned(),
        Some(("x-request-id", id)) => format!("x-request-id: {}", hex_masked(id)),
        _ => line.clone(),
    });
    Response { head: head.collect(), chunks }
}

fn mask(text: &str) -> String {
    let mut text = text.to_owned();
    for before in ["\"chatcmpl-tool-", "\"chatcmpl-", "\"cmpl-", "\"modelperm-"] {
        text = mask_after(&text, before, hex_masked);
    }
    text = mask_after(&text, "\"created\":", |digits| "0".repeat(digits.len()));
    text = mask_after(&text, "\"vllm-0.32.0-", |digest| "X".repeat(digest.len()));
    for time in
        ["time_to_first_token_ms", "generation_time_ms", "queue_time_ms", "mean_itl_ms", "tokens_per_second"]
    {
        text = mask_after(&text, &format!("\"{time}\":"), |number| {
            assert!(number.parse::<f64>().is_ok(), "{time} is {number}");
            "0.0".to_owned()
        });
    }
    text
}

/// An id that is all hex digits; one that a client chose stays.
fn hex_masked(id: &str) -> String {
    let hex = id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if hex { "X".repeat(id.len()) } else { id.to_owned() }
}

/// Replaces each value that follows `before`, up to the next quote, comma or bracket.
fn mask_after(text: &str, before: &str, replace: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['"', ',', '}']).unwrap_or(part.len());
        out.push_str(before);
        out.push_str(&replace(&part[..end]));
        out.push_str(&part[end..]);
    }
    out
}
