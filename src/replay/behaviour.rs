//! How the client behaves towards the requests it has sent: as plain data, and kept with the run.

use serde::{Deserialize, Serialize};

use super::cancel::Cancel;
use super::retry::Retry;
use crate::timeline::Ns;

/// How the client behaves. Without any of it, each request is sent once, as the tape has it, and waited for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Behaviour {
    /// When requests are broken off on purpose, and which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// When and how often a request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whose words a conversation's later turns repeat.
    #[serde(default)]
    pub history: History,
    /// From the end of one turn to the next, in ns, in place of what the tape or the schedule says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_ns: Option<Ns>,
}

impl Behaviour {
    /// Whether there is nothing to tell of it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose words a conversation's later turns repeat.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// What the server said in this run.
    Answers,
    /// What the tape says.
    #[default]
    Recorded,
}
