//! What a choice of a chat says: a chunk's `delta`, a document's `message`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::is_filled;

/// A message, or a part of one.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default)]
    pub(super) role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
}

impl Message<'_> {
    /// Whether there is reasoning under its present name.
    pub(super) fn has_reasoning(&self) -> bool {
        self.reasoning.is_some_and(is_filled)
    }

    /// Whether there is reasoning under its older name.
    pub(super) fn has_reasoning_content(&self) -> bool {
        self.reasoning_content.is_some_and(is_filled)
    }

    /// Whether a tool is called.
    pub(super) fn has_call(&self) -> bool {
        [self.tool_calls, self.function_call].into_iter().flatten().any(is_filled)
    }
}
