//! `vllm bench serve`.
