//! `ShareGPT`'s conversations: a JSON array, or lines, of `{"id", "conversations": [{"from", "value"}]}` or
//! `{"conversations": [{"role", "content"}]}`. Each message of the user is a request with all that was said before it;
//! the answer that stands after it gives the length to ask for.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::json;

use super::import::{Error, Input};
use super::rows::{Row, Rows};
use super::source::{self, Answer, Asked, Imported, Prompt};
use crate::tape::format::Session;

#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "conversation", alias = "messages")]
    conversations: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(alias = "from")]
    role: String,
    #[serde(alias = "value")]
    content: String,
}

impl Message {
    /// The role as an endpoint knows it.
    fn role(&self) -> Option<&'static str> {
        match self.role.as_str() {
            "human" | "user" => Some("user"),
            "assistant" | "bard" | "bing" | "chatgpt" | "gpt" | "model" => Some("assistant"),
            "system" => Some("system"),
            _ => None,
        }
    }
}

/// Reads such a file, one conversation at a time.
pub(super) struct Reader {
    rows: Rows,
    /// Conversations read so far: what sessions are called by.
    conversations: u64,
    turns: VecDeque<Asked>,
}

impl Reader {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::json(input)?, conversations: 0, turns: VecDeque::new() })
    }
}

impl source::Source for Reader {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        if let Some(turn) = self.turns.pop_front() {
            return Ok(Some(Imported::Asked(turn)));
        }
        let Some(row) = self.rows.next()? else { return Ok(None) };
        self.turns = turns(&row, self.conversations)?;
        self.conversations += 1;
        let nothing =
            Imported::Nothing { line: row.line, what: "a conversation in which no user says anything" };
        Ok(Some(self.turns.pop_front().map_or(nothing, Imported::Asked)))
    }
}

fn turns(row: &Row<'_>, conversation: u64) -> Result<VecDeque<Asked>, Error> {
    let entry: Entry = row.json(r#"{"conversations": [{"from": …, "value": …}]}"#)?;
    let mut turns = VecDeque::new();
    let mut said = String::from("[");
    let messages = entry.conversations;
    for (at, message) in messages.iter().enumerate() {
        let role = message.role().ok_or_else(|| {
            row.error(format!(
                "message {} is of {:?}, which is no role: correct the row",
                at + 1,
                message.role
            ))
        })?;
        if at > 0 {
            said.push(',');
        }
        said += &json!({"role": role, "content": message.content}).to_string();
        if role != "user" {
            continue;
        }
        let answer = messages.get(at + 1).filter(|next| next.role() == Some("assistant"));
        let turn = u32::try_from(turns.len()).unwrap_or(u32::MAX);
        turns.push_back(Asked {
            offset_ns: 0,
            prompt: Prompt::Messages(format!("{said}]")),
            answer: answer.map_or(Answer::Unknown, |answer| Answer::Text(answer.content.clone())),
            session: Some(Session { id: conversation.to_string(), turn }),
        });
    }
    Ok(turns)
}
