//! vLLM's metrics as data: names, words, labels, and where in the state each value is.

use super::State;
use super::histogram::Histogram;

/// One family of series.
#[derive(Debug)]
pub(super) struct Family {
    /// As its samples are called; a counter's with `_total`.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) versions: Versions,
    /// A label that tells its series apart, and its values.
    pub(super) label: Option<(&'static str, &'static [&'static str])>,
    pub(super) kind: Kind,
}

/// Which servers have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Versions {
    /// vLLM 0.11 alone.
    Early,
    /// vLLM 0.32 and later.
    Late,
    Both,
}

/// What it is, and its value; a labelled one's by the place of the label's value.
#[derive(Debug)]
pub(super) enum Kind {
    Counter(fn(&State, usize) -> f64),
    Gauge(fn(&State, usize) -> f64),
    Histogram(fn(&State) -> &Histogram),
}

/// Why answers end. vLLM 0.11 knows the first three.
pub(super) const FINISHED: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];

/// How many of [`FINISHED`] vLLM 0.11 knows.
pub(super) const FINISHED_EARLY: usize = 3;

/// The labels of `vllm:cache_config_info`, as text: what the captured servers said of their caches, whatever an engine's
/// is like.
pub(super) const CACHE_CONFIG: [&str; 2] = [CACHE_EARLY, CACHE_LATE];

const CACHE_EARLY: &str = r#"block_size="128",cache_dtype="auto",calculate_kv_scales="False",cpu_kvcache_space_bytes="1073741824",cpu_offload_gb="0.0",enable_prefix_caching="False",engine="0",gpu_memory_utilization="0.9",is_attention_free="False",kv_cache_memory_bytes="None",kv_sharing_fast_prefill="False",mamba_cache_dtype="auto",mamba_page_size_padded="None",mamba_ssm_cache_dtype="auto",num_cpu_blocks="None",num_gpu_blocks="16384",num_gpu_blocks_override="None",prefix_caching_hash_algo="sha256",sliding_window="None",swap_space="4.0",swap_space_bytes="4294967296.0""#;

const CACHE_LATE: &str = r#"_block_size_resolved="True",block_size="128",cache_dtype="auto",cache_hit_alignment_tokens="None",effective_attention_block_size="128",enable_mamba_shared_prefix_checkpoint="False",enable_prefix_caching="False",engine="0",gpu_memory_utilization="0.92",hash_block_size="None",is_attention_free="False",kv_cache_dtype_skip_layers="[]",kv_cache_layout="None",kv_cache_max_concurrency="512.0",kv_cache_memory_bytes="1073741824",kv_cache_size_tokens="2097152",kv_offloading_backend="native",kv_offloading_size="None",kv_sharing_fast_prefill="False",mamba_block_size="None",mamba_cache_dtype="auto",mamba_cache_mode="none",mamba_page_size_padded="None",mamba_ssm_cache_dtype="float32",num_cpu_blocks="None",num_gpu_blocks="16384",num_gpu_blocks_override="None",prefix_cache_retention_interval="0",prefix_caching_hash_algo="sha256",prefix_match_unit="None",replayssm_buffer_len="16",skip_page_size_padded="None",sliding_window="None",swa_bounded_replay="True",use_kda_recoverssm="False",use_replayssm="False",user_specified_block_size="False""#;

/// In the order in which they are told.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "vllm:estimated_flops_per_gpu_total",
        help: "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:estimated_read_bytes_per_gpu_total",
        help: "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:estimated_write_bytes_per_gpu_total",
        help: "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:num_requests_running",
        help: "Number of requests in model execution batches.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Gauge(|s, _| s.engine.map_or(s.running as f64, |engine| engine.running as f64)),
    },
    Family {
        name: "vllm:num_requests_waiting",
        help: "Number of requests waiting to be processed.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Gauge(|s, _| s.engine(|engine| engine.waiting as f64)),
    },
    Family {
        name: "vllm:num_requests_waiting_by_reason",
        help: "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
        versions: Versions::Late,
        label: Some(("reason", &["capacity", "deferred"])),
        kind: Kind::Gauge(|s, i| s.engine(|engine| if i == 0 { engine.waiting as f64 } else { 0.0 })),
    },
    Family {
        name: "vllm:engine_sleep_state",
        help: "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        versions: Versions::Late,
        label: Some(("sleep_state", &["awake", "weights_offloaded", "discard_all"])),
        kind: Kind::Gauge(|_, i| if i == 0 { 1.0 } else { 0.0 }),
    },
    Family {
        name: "vllm:kv_cache_usage_perc",
        help: "KV-cache usage. 1 means 100 percent usage.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Gauge(|s, _| s.engine(|engine| engine.cache_usage)),
    },
    Family {
        name: "vllm:prefix_cache_queries_total",
        help: "Prefix cache queries, in terms of number of queried tokens.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Counter(|s, _| s.engine(|engine| engine.totals.queried_tokens as f64)),
    },
    Family {
        name: "vllm:prefix_cache_hits_total",
        help: "Prefix cache hits, in terms of number of cached tokens.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Counter(|s, _| s.engine(|engine| engine.totals.hit_tokens as f64)),
    },
    Family {
        name: "vllm:external_prefix_cache_queries_total",
        help: "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:external_prefix_cache_hits_total",
        help: "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:mm_cache_queries_total",
        help: "Multi-modal cache queries, in terms of number of queried items.",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:mm_cache_hits_total",
        help: "Multi-modal cache hits, in terms of number of cached items.",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:num_preemptions_total",
        help: "Cumulative number of preemption from the engine.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Counter(|s, _| s.engine(|engine| engine.totals.preemptions as f64)),
    },
    Family {
        name: "vllm:prompt_tokens_total",
        help: "Number of prefill tokens processed.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Counter(|s, _| s.prompt_tokens as f64),
    },
    Family {
        name: "vllm:prompt_tokens_by_source_total",
        help: "Number of prompt tokens by source.",
        versions: Versions::Late,
        label: Some(("source", &["local_compute", "local_cache_hit", "external_kv_transfer"])),
        kind: Kind::Counter(|s, i| if i == 0 { s.prompt_tokens as f64 } else { 0.0 }),
    },
    Family {
        name: "vllm:prompt_tokens_cached_total",
        help: "Number of cached prompt tokens (local + external).",
        versions: Versions::Late,
        label: None,
        kind: Kind::Counter(|s, _| s.engine(|engine| engine.totals.hit_tokens as f64)),
    },
    Family {
        name: "vllm:prompt_tokens_cached_by_source_total",
        help: "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
        versions: Versions::Late,
        label: Some(("source", &["device", "host", "p2p", "disk", "external_unspecified"])),
        kind: Kind::Counter(|s, i| {
            s.engine(|engine| if i == 0 { engine.totals.hit_tokens as f64 } else { 0.0 })
        }),
    },
    Family {
        name: "vllm:generation_tokens_total",
        help: "Number of generation tokens processed.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Counter(|s, _| s.generation_tokens as f64),
    },
    Family {
        name: "vllm:request_success_total",
        help: "Count of successfully processed requests.",
        versions: Versions::Both,
        label: Some(("finished_reason", &FINISHED)),
        kind: Kind::Counter(|s, i| s.finished[i] as f64),
    },
    Family {
        name: "vllm:admission_rejections_total",
        help: "Number of admission attempts rejected by a queue limit, by reason.",
        versions: Versions::Late,
        label: Some(("reason", &["max_num_queued_reqs", "max_num_queued_tokens"])),
        kind: Kind::Counter(|_, _| 0.0),
    },
    Family {
        name: "vllm:request_prompt_tokens",
        help: "Number of prefill tokens processed.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.request_prompt_tokens),
    },
    Family {
        name: "vllm:request_generation_tokens",
        help: "Number of generation tokens processed.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.request_generation_tokens),
    },
    Family {
        name: "vllm:iteration_tokens_total",
        help: "Histogram of number of tokens per engine_step.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.iteration_tokens),
    },
    Family {
        name: "vllm:request_max_num_generation_tokens",
        help: "Histogram of maximum number of requested generation tokens.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.request_max_tokens),
    },
    Family {
        name: "vllm:request_params_n",
        help: "Histogram of the n request parameter.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.params_n),
    },
    Family {
        name: "vllm:request_params_max_tokens",
        help: "Histogram of the max_tokens request parameter.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.params_max_tokens),
    },
    Family {
        name: "vllm:time_to_first_token_seconds",
        help: "Histogram of time to first token in seconds.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.ttft),
    },
    Family {
        name: "vllm:time_per_output_token_seconds",
        help: "Histogram of time per output token in seconds.DEPRECATED: Use vllm:inter_token_latency_seconds instead.",
        versions: Versions::Early,
        label: None,
        kind: Kind::Histogram(|s| &s.itl),
    },
    Family {
        name: "vllm:inter_token_latency_seconds",
        help: "Histogram of inter-token latency in seconds.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.itl),
    },
    Family {
        name: "vllm:request_time_per_output_token_seconds",
        help: "Histogram of time_per_output_token_seconds per request.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.tpot),
    },
    Family {
        name: "vllm:e2e_request_latency_seconds",
        help: "Histogram of e2e request latency in seconds.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.e2e),
    },
    Family {
        name: "vllm:request_queue_time_seconds",
        help: "Histogram of time spent in WAITING phase for request.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.queue),
    },
    Family {
        name: "vllm:request_inference_time_seconds",
        help: "Histogram of time spent in RUNNING phase for request.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.inference),
    },
    Family {
        name: "vllm:request_prefill_time_seconds",
        help: "Histogram of time spent in PREFILL phase for request.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.prefill),
    },
    Family {
        name: "vllm:request_decode_time_seconds",
        help: "Histogram of time spent in DECODE phase for request.",
        versions: Versions::Both,
        label: None,
        kind: Kind::Histogram(|s| &s.decode),
    },
    Family {
        name: "vllm:request_num_preemptions",
        help: "Histogram of the number of times a request was preempted.",
        versions: Versions::Late,
        label: None,
        kind: Kind::Histogram(|s| &s.preemptions),
    },
    Family {
        name: "vllm:request_prefill_kv_computed_tokens",
        help: "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        versions: Versions::Late,
        label: None,
        kind: Kind::Histogram(|s| &s.request_prompt_tokens),
    },
];
