//! Every flag of `evalscope perf`, of 1.1.1 and of 1.14.1.

use super::super::flags::Takes::{Many, Nothing, One};
use super::super::flags::{Flag, flag};

/// In the order of the original's parser (`evalscope/perf/arguments.py`).
pub(super) const FLAGS: &[Flag] = &[
    // Model and API.
    flag("--model", One),
    flag("--attn-implementation", One).refused(),
    flag("--api", One),
    flag("--tokenizer-path", One),
    // Connection. Time limits beyond that of a whole request only decide when a dead server is given up.
    flag("--url", One),
    flag("--port", One).no_effect(),
    flag("--headers", Many),
    flag("--api-key", One),
    flag("--connect-timeout", One).no_effect(),
    flag("--read-timeout", One).no_effect(),
    flag("--total-timeout", One).later(),
    // 1.1.1 stores what is the default already.
    flag("--no-test-connection", Nothing),
    // Traffic.
    flag("--scenario", One).later().refused(),
    flag("--number", Many).or("-n"),
    flag("--parallel", Many),
    flag("--rate", Many),
    flag("--warmup-num", One).later(),
    flag("--enable-pd-metrics", Nothing).later(),
    flag("--open-loop", Nothing).later(),
    flag("--sleep-interval", One),
    flag("--duration", One).later().refused(),
    // Search for a load that meets objectives.
    flag("--sla-auto-tune", Nothing).later().refused(),
    flag("--sla-fixed-parallel", One).later().refused(),
    flag("--sla-lower-bound", One).later().refused(),
    flag("--sla-num-runs", One).later().refused(),
    flag("--sla-number-multiplier", One).later().refused(),
    flag("--sla-params", One).later().refused(),
    flag("--sla-upper-bound", One).later().refused(),
    flag("--sla-variable", One).later().refused(),
    // Sizes of the original's own queues.
    flag("--db-commit-interval", One).no_effect(),
    flag("--queue-size-multiplier", One).no_effect(),
    flag("--in-flight-task-multiplier", One).no_effect(),
    flag("--num-workers", One).later().no_effect(),
    // Logs.
    flag("--log-every-n-query", One).no_effect(),
    flag("--debug", Nothing).no_effect(),
    flag("--visualizer", One).refused(),
    flag("--wandb-api-key", One).refused(),
    flag("--swanlab-api-key", One).refused(),
    flag("--swanlab-host", One).later().refused(),
    flag("--name", One),
    flag("--alias", One).later(),
    flag("--enable-progress-tracker", Nothing).later().no_effect(),
    // Prompts.
    flag("--max-prompt-length", One),
    flag("--min-prompt-length", One),
    flag("--prefix-length", One),
    flag("--prefix-count", One).later(),
    flag("--prompt", One),
    flag("--query-template", One),
    flag("--apply-chat-template", Nothing),
    flag("--no-apply-chat-template", Nothing),
    flag("--image-width", One).refused(),
    flag("--image-height", One).refused(),
    flag("--image-format", One).refused(),
    flag("--image-num", One).refused(),
    flag("--image-patch-size", One).refused(),
    // Output.
    flag("--outputs-dir", One),
    flag("--no-timestamp", Nothing).later(),
    // Data sets.
    flag("--dataset", One),
    flag("--dataset-path", One),
    flag("--data-source", One).later().refused(),
    flag("--dataset-offset", One).later(),
    flag("--dataset-args", One).later(),
    // Responses.
    flag("--frequency-penalty", One),
    flag("--repetition-penalty", One),
    flag("--logprobs", Nothing),
    flag("--max-tokens", Many),
    flag("--min-tokens", One),
    flag("--n-choices", One),
    flag("--seed", One),
    flag("--stop", Many),
    flag("--stop-token-ids", Many),
    flag("--stream", Nothing),
    // An answer in one piece has no timeline of tokens.
    flag("--no-stream", Nothing).refused(),
    flag("--temperature", One),
    flag("--top-p", One),
    flag("--top-k", One),
    flag("--extra-args", One),
    flag("--tokenize-prompt", Nothing).later(),
    // Conversations.
    flag("--multi-turn", Nothing).later().refused(),
    flag("--min-turns", One).later().refused(),
    flag("--max-turns", One).later().refused(),
    flag("--multi-turn-args", One).later().refused(),
];
