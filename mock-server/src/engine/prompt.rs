//! A prompt's blocks, without its tokens.
//!
//! What makes a prefix cache hit is that two prompts begin alike. That can be seen in a request's body without a
//! tokenizer, and so at a rate of a million requests in seconds: the text from the prompt's key on is cut into words,
//! each counted as one token for every eight bytes begun, and a block ends wherever sixteen (or whatever a block
//! holds) are full. Of prompts made of one-token words, as this project's generators make them, and of token ids the
//! count is exact; of other text it is near the tokenizer's, and equal beginnings stay equal beginnings. Never more
//! blocks than the prompt's real number of tokens fills.

use memchr::memmem;

/// Bytes of a word that count as one token.
const BYTES_A_TOKEN: u32 = 8;

/// The hash of each full block of the prompt in a request's body, each standing for everything up to the block's end;
/// see [`Request::prefix`](super::Request::prefix).
#[must_use]
pub fn prefix(body: &[u8], prompt_tokens: u32, block_tokens: u32) -> Box<[u64]> {
    let most = (prompt_tokens / block_tokens.max(1)) as usize;
    let from = [&b"\"messages\""[..], b"\"prompt\"", b"\"input\""]
        .into_iter()
        .filter_map(|key| memmem::find(body, key))
        .min()
        .unwrap_or(0);
    let mut blocks = Vec::with_capacity(most);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // Tokens of the block, bytes of the word.
    let (mut tokens, mut bytes) = (0, 0);
    for &byte in &body[from..] {
        if blocks.len() == most {
            break;
        }
        let is_word = byte.is_ascii_alphanumeric() || byte >= 0x80;
        if is_word && bytes % BYTES_A_TOKEN == 0 {
            if tokens == block_tokens {
                blocks.push(mixed(hash));
                tokens = 0;
            }
            tokens += 1;
        }
        bytes = if is_word { bytes + 1 } else { 0 };
        // FNV-1a, 64 bits.
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    if blocks.len() < most && tokens == block_tokens {
        blocks.push(mixed(hash));
    }
    blocks.into()
}

/// The finaliser of `SplitMix64`.
pub(super) const fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prompt: &str) -> Box<[u64]> {
        prefix(format!("{{\"model\":\"m\",\"prompt\":{prompt}}}").as_bytes(), 1000, 4)
    }

    #[test]
    fn equal_beginnings_are_equal_blocks() {
        // The key is a word too.
        let (a, b) = (
            of("\"one two three four five six seven eight\""),
            of("\"one two three four five six seven EIGHT\""),
        );
        assert_eq!((a.len(), a[0]), (2, b[0]));
        assert_ne!(a[1], of("\"ONE two three four five six seven eight\"")[1]);
        assert_eq!(of("[1,2,3,4,5,6,7]").len(), 2);
    }

    #[test]
    fn a_prompt_never_has_more_full_blocks_than_tokens_fill() {
        let body = b"{\"prompt\":\"one two three four five six seven eight nine\"}";
        assert_eq!(prefix(body, 7, 4).len(), 1);
        assert_eq!(prefix(body, 3, 4).len(), 0);
        assert_eq!(prefix(b"", 100, 16).len(), 0);
    }

    #[test]
    fn long_words_are_several_tokens() {
        assert_eq!(of("\"abcdefghijklmnopqrstuvwx\"").len(), 1);
        assert_eq!(of("\"abcdefghijklmnop\"").len(), 0);
    }
}
