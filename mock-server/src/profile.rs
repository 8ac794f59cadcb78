//! What differs between the servers whose bytes the mock can speak, as data.

use std::fmt;

/// Whose bytes the server speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Profile {
    /// vLLM 0.11.0.
    #[default]
    #[value(name = "vllm-0.11.0")]
    Vllm0110,
    /// vLLM 0.32.0.
    #[value(name = "vllm-0.32.0")]
    Vllm0320,
    /// vLLM 0.33.0.
    #[value(name = "vllm-0.33.0")]
    Vllm0330,
    /// `OpenAI`'s own API, after its public reference.
    #[value(name = "openai")]
    OpenAi,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vllm0110 => "vllm-0.11.0",
            Self::Vllm0320 => "vllm-0.32.0",
            Self::Vllm0330 => "vllm-0.33.0",
            Self::OpenAi => "openai",
        })
    }
}

/// The details of one profile. Two that agree in a detail share its value; nothing else in the crate asks for a version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// What `/version` says, where there is one.
    pub(crate) version: &'static str,
    /// Hex digits of a fresh id.
    pub(crate) id_digits: usize,
    /// Whether answers carry a `system_fingerprint`.
    pub(crate) fingerprint: bool,
    /// The key of reasoning text.
    pub(crate) reasoning_key: &'static str,
    /// How a request is refused.
    pub(crate) errors: ErrorStyle,
    /// The shape of events and bodies.
    pub(crate) shape: Shape,
}

/// Families of error texts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ErrorStyle {
    /// vLLM 0.11: Python's own text, the whole body repeated, no `param`.
    Verbose,
    /// vLLM 0.32 and later: paths with dots, inputs summarised, `param` set.
    Brief,
    /// `OpenAI`: one `type` for all, laid out over lines.
    OpenAi,
}

/// Families of events and bodies, oldest first: a later one has what the earlier ones brought.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Shape {
    /// vLLM 0.11.
    First,
    /// vLLM 0.32: `prompt_text`, `routed_experts`, `ec_transfer_params`, `metrics`.
    Second,
    /// vLLM 0.33: also `kv_transfer_params` in every event, and `weight_versions`.
    Third,
    /// `OpenAI`: the finish in an event of its own, none of vLLM's additions.
    OpenAi,
}

impl Profile {
    /// Its details.
    pub(crate) const fn traits(self) -> Traits {
        let brief = Traits {
            version: "0.32.0",
            id_digits: 16,
            fingerprint: true,
            reasoning_key: "reasoning",
            errors: ErrorStyle::Brief,
            shape: Shape::Second,
        };
        match self {
            Self::Vllm0110 => Traits {
                version: "0.11.0",
                id_digits: 32,
                fingerprint: false,
                reasoning_key: "reasoning_content",
                errors: ErrorStyle::Verbose,
                shape: Shape::First,
            },
            Self::Vllm0320 => brief,
            Self::Vllm0330 => Traits { version: "0.33.0", shape: Shape::Third, ..brief },
            Self::OpenAi => Traits {
                version: "",
                id_digits: 32,
                errors: ErrorStyle::OpenAi,
                shape: Shape::OpenAi,
                ..brief
            },
        }
    }
}

/// When the chunk that names the assistant's role is sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum RoleChunk {
    /// With the first token, in an event of its own before it, as vLLM does.
    #[default]
    FirstToken,
    /// As soon as the request is accepted, as some servers do: a client that takes it for a token measures nothing.
    OnAccept,
    /// In the first token's own event.
    Merged,
    /// Never.
    Absent,
}

/// How the server speaks: the profile, and what vLLM has flags for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Wire {
    /// Whose bytes the server speaks.
    #[arg(long, value_enum, default_value_t)]
    pub profile: Profile,
    /// When the chunk that names the assistant's role is sent.
    #[arg(long, value_enum, default_value = "first-token")]
    pub role_chunk: RoleChunk,
    /// A further name of the model; may be repeated.
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// The path that `/v1/models` tells as the model's root [default: its name].
    #[arg(long, value_name = "PATH")]
    pub model_root: Option<String>,
    /// Tokens in each event of a stream after the first, unless the request says otherwise [default: 1].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub stream_interval: Option<u32>,
    /// Behave as with a reasoning parser: the first tokens of a chat are its reasoning, events without text are left out.
    #[arg(long, value_name = "NAME")]
    pub reasoning_parser: Option<String>,
    /// How many tokens of a chat are its reasoning, with --reasoning-parser.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub reasoning_tokens: u32,
    /// Behave as with a tool parser: `tool_choice` may be `auto`, events without text are left out.
    #[arg(long, value_name = "NAME")]
    pub tool_call_parser: Option<String>,
    /// Tell cached prompt tokens in `usage`: always 0.
    #[arg(long)]
    pub enable_prompt_tokens_details: bool,
    /// Tell each answer's own times in `metrics`, unless an engine keeps the time.
    #[arg(long)]
    pub enable_per_request_metrics: bool,
    /// Send an `x-request-id` header with every response.
    #[arg(long)]
    pub enable_request_id_headers: bool,
}

impl Wire {
    /// Whether chats go through a parser, which leaves out events without text.
    pub(crate) fn is_parsed(&self) -> bool {
        self.reasoning_parser.is_some() || self.tool_call_parser.is_some()
    }
}
