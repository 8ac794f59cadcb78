//! Why a tokenizer cannot be had, or cannot do what is asked of it.

use std::io;
use std::path::PathBuf;

/// What went wrong with a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such tokenizer.
    #[error(
        "no tokenizer {name:?}: give a folder that holds a tokenizer.json, such a file, a hub name (org/model), or \
         \"embedded\""
    )]
    Unknown {
        /// The name as it was given.
        name: String,
    },
    /// A file of the tokenizer could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of the tokenizer could not be kept in the cache.
    #[error("cannot keep the tokenizer in {}: {source}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file larger than any tokenizer.
    #[error("{what} is larger than {limit_mib} MiB: not a tokenizer.json")]
    TooLarge {
        /// The file or URL.
        what: String,
        /// The limit.
        limit_mib: u64,
    },
    /// A file that holds no tokenizer.
    #[error("tokenizer {name:?} cannot be used: {reason}")]
    Parse {
        /// The tokenizer's name.
        name: String,
        /// What the parser said.
        reason: String,
    },
    /// The hub did not give the tokenizer.
    #[error("cannot fetch {url}: {reason}; give a folder or a tokenizer.json file instead")]
    Fetch {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A hub name while `HF_HUB_OFFLINE` is set, and nothing in the cache.
    #[error(
        "cannot fetch tokenizer {name:?}: HF_HUB_OFFLINE is set and it is not in the cache; give a folder or a \
         tokenizer.json file instead"
    )]
    Offline {
        /// The hub name.
        name: String,
    },
    /// A text that the tokenizer cannot encode.
    #[error("cannot encode a text: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// Ids that the tokenizer cannot decode.
    #[error("cannot decode tokens: {reason}")]
    Decode {
        /// What the tokenizer said.
        reason: String,
    },
    /// A chat without a template.
    #[error("tokenizer {name:?} has no chat template (chat_template in tokenizer_config.json)")]
    NoTemplate {
        /// The tokenizer's name.
        name: String,
    },
    /// A template that cannot be parsed, or refuses the messages.
    #[error("the chat template of tokenizer {name:?} fails: {reason}")]
    Template {
        /// The tokenizer's name.
        name: String,
        /// What the template engine, or the template itself, said.
        reason: String,
    },
}
