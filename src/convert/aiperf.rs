//! `AIPerf`'s `single_turn` and `multi_turn`: JSON lines `{"text", "timestamp" or "delay", "output_length"}`, and
//! `{"session_id", "turns": [the same]}`. Times are milliseconds.
//!
//! The files hold what users say and no answers; `AIPerf` puts the server's own in their place as they come. In a tape a
//! turn's messages are what the user has said so far.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::export::{
    Alike, BASE_URL, Carries, Exporter, Offsets, Usage, command, comments, milliseconds, model, quoted,
};
use super::import::{Error, Input};
use super::moment::Decimal;
use super::prompt::{self, Ask, ask};
use super::rows::{Row, Rows};
use super::source::{Asked, Imported, Prompt, Source};
use crate::tape::Request;
use crate::tape::format::Session;

#[derive(Deserialize)]
struct Line<'a> {
    session_id: Option<String>,
    #[serde(borrow)]
    turns: Option<Vec<Turn<'a>>>,
}

#[derive(Deserialize)]
struct Turn<'a> {
    text: Option<String>,
    #[serde(default)]
    texts: Vec<String>,
    role: Option<String>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    delay: Option<&'a RawValue>,
    output_length: Option<u32>,
    image: Option<IgnoredAny>,
    images: Option<IgnoredAny>,
    audio: Option<IgnoredAny>,
    audios: Option<IgnoredAny>,
    video: Option<IgnoredAny>,
    videos: Option<IgnoredAny>,
    extra: Option<IgnoredAny>,
}

const EXPECTED: &str = r#"{"text": …} or {"session_id": …, "turns": [{"text": …}]}"#;

/// Reads such a file, one line at a time.
pub(super) struct Reader {
    rows: Rows,
    lines: u64,
    /// The turns of each session that single lines have named so far.
    named: HashMap<String, u32>,
    turns: VecDeque<Asked>,
}

impl Reader {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::lines(input)?, lines: 0, named: HashMap::new(), turns: VecDeque::new() })
    }
}

impl Source for Reader {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        if let Some(turn) = self.turns.pop_front() {
            return Ok(Some(Imported::Asked(turn)));
        }
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let line: Line<'_> = row.json(EXPECTED)?;
        self.lines += 1;
        let Some(turns) = line.turns else {
            let turn: Turn<'_> = row.json(EXPECTED)?;
            let offset_ns = time(&row, &turn)?.unwrap_or(0);
            let session = line.session_id.map(|id| {
                let turns = self.named.entry(id.clone()).or_default();
                *turns += 1;
                Session { id, turn: *turns - 1 }
            });
            let answer = turn.output_length.into();
            let prompt = Prompt::Text(text(&row, turn)?);
            return Ok(Some(Imported::Asked(Asked { offset_ns, prompt, answer, session })));
        };
        let id = line.session_id.unwrap_or_else(|| format!("line-{}", self.lines));
        if self.named.insert(id.clone(), 0).is_some() {
            return Err(row.error(format!("session_id {id:?} a second time: each line has its own")));
        }
        self.turns = session(&row, &id, turns)?;
        let nothing = Imported::Nothing { line: row.line, what: "a session without turns" };
        Ok(Some(self.turns.pop_front().map_or(nothing, Imported::Asked)))
    }
}

fn session(row: &Row<'_>, id: &str, turns: Vec<Turn<'_>>) -> Result<VecDeque<Asked>, Error> {
    let (mut asked, mut offset_ns, mut said) = (VecDeque::new(), 0_u64, String::from("["));
    for (turn, number) in turns.into_iter().zip(0..) {
        // A delay counts from the turn before; how long that takes is the server's matter.
        offset_ns = match (&turn.timestamp, time(row, &turn)?) {
            (Some(_), Some(ns)) => ns,
            (_, ns) => offset_ns.saturating_add(ns.unwrap_or(0)),
        };
        let answer = turn.output_length.into();
        if number > 0 {
            said.push(',');
        }
        said += &json!({"role": "user", "content": text(row, turn)?}).to_string();
        asked.push_back(Asked {
            offset_ns,
            prompt: Prompt::Messages(format!("{said}]")),
            answer,
            session: Some(Session { id: id.to_owned(), turn: number }),
        });
    }
    Ok(asked)
}

fn time(row: &Row<'_>, turn: &Turn<'_>) -> Result<Option<u64>, Error> {
    let time = turn.timestamp.or(turn.delay);
    time.map(|time| row.offset_ns(time.get(), Decimal::MILLI)).transpose()
}

/// A turn's one text.
fn text(row: &Row<'_>, turn: Turn<'_>) -> Result<String, Error> {
    let media = [&turn.image, &turn.images, &turn.audio, &turn.audios, &turn.video, &turn.videos];
    if media.into_iter().any(Option::is_some) {
        return Err(row.error("it has images, sound or video: only text is imported; leave the line out"));
    }
    if turn.extra.is_some() {
        return Err(row.error("it has \"extra\" keys of a body: import whole bodies, as raw-payload"));
    }
    if let Some(role) = turn.role.filter(|role| role != "user") {
        return Err(
            row.error(format!("its role is {role:?}: only a user's text is imported; leave the line out"))
        );
    }
    match (turn.text, turn.texts.as_slice()) {
        (Some(text), []) => Ok(text),
        (None, [text]) => Ok(text.clone()),
        (None, []) => Err(row.error(format!("it has no text; expected {EXPECTED}: is this another format?"))),
        _ => Err(row.error("it has several texts: give each a line of its own")),
    }
}

/// Writes `single_turn`.
#[derive(Debug, Default)]
pub(super) struct SingleTurn {
    alike: Alike,
}

impl Exporter for SingleTurn {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let ask = ask(request)?;
        self.alike.add(request, &ask)?;
        Ok(turn(request, ask.prompt.text(), ask.output_tokens).to_string())
    }

    fn remedy(&self) -> &'static str {
        "replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries { offsets: Offsets::Milliseconds, ..Carries::default() }
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        profile(&self.alike, "single_turn", usage)
    }
}

/// Writes `multi_turn`: a session's turns stand in one line, so all are kept until the tape ends.
#[derive(Debug, Default)]
pub(super) struct MultiTurn {
    alike: Alike,
    sessions: Vec<Kept>,
    /// Where a session stands.
    places: HashMap<String, usize>,
    answers: u64,
}

#[derive(Debug)]
struct Kept {
    id: String,
    said: Vec<String>,
    turns: Vec<Value>,
}

impl MultiTurn {
    /// The session that a request belongs to; one of its own where it has none.
    fn place(&mut self, request: &Request) -> Result<usize, String> {
        let (id, due) = match &request.session {
            Some(session) => (session.id.clone(), session.turn as usize),
            None => (format!("request-{}", request.index), 0),
        };
        let next = self.sessions.len();
        let place = *self.places.entry(id.clone()).or_insert(next);
        if place == next {
            self.sessions.push(Kept { id: id.clone(), said: Vec::new(), turns: Vec::new() });
        }
        let turns = self.sessions[place].turns.len();
        if turns == due {
            Ok(place)
        } else {
            Err(format!("it is turn {due} of session {id:?}, which has {turns}"))
        }
    }
}

impl Exporter for MultiTurn {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let Chat { said, answers, ask } = chat(request)?;
        self.alike.add(request, &ask)?;
        let place = self.place(request)?;
        let kept = &mut self.sessions[place];
        let (last, before) = said.split_last().ok_or("its messages hold nothing of a user")?;
        if before != kept.said.as_slice() {
            return Err("its messages do not continue those of the turn before".to_owned());
        }
        self.answers += answers;
        kept.turns.push(turn(request, last, ask.output_tokens));
        kept.said = said;
        Ok(String::new())
    }

    fn rest(&mut self) -> Vec<String> {
        let line = |kept: Kept| json!({"session_id": kept.id, "turns": kept.turns}).to_string();
        std::mem::take(&mut self.sessions).into_iter().map(line).collect()
    }

    fn remedy(&self) -> &'static str {
        "replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries { offsets: Offsets::Milliseconds, sessions: true, ..Carries::default() }
    }

    fn lost(&self) -> Vec<String> {
        match self.answers {
            0 => Vec::new(),
            count => {
                vec![format!("{count} recorded answers within messages: AIPerf puts the server's own there")]
            }
        }
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        profile(&self.alike, "multi_turn", usage)
    }
}

/// A chat taken apart: what the user says in it, and how many answers stand between.
struct Chat {
    said: Vec<String>,
    answers: u64,
    ask: Ask,
}

fn chat(request: &Request) -> Result<Chat, String> {
    let mut body = prompt::object(request)?;
    let Some(Value::Array(messages)) = body.shift_remove("messages") else {
        return Err("it has no list of messages".to_owned());
    };
    let (mut said, mut answers) = (Vec::new(), 0);
    for message in &messages {
        match (message["role"].as_str(), message["content"].as_str()) {
            (Some("user"), Some(text)) => said.push(text.to_owned()),
            (Some("assistant"), Some(_)) => answers += 1,
            _ => return Err("its messages are not all text of the user and the assistant".to_owned()),
        }
    }
    if messages.last().is_some_and(|last| last["role"] != "user") {
        return Err("its last message is not the user's".to_owned());
    }
    let text = said.last().cloned().unwrap_or_default();
    body.insert("messages".to_owned(), json!([{"role": "user", "content": text}]));
    let single = Request { body: Value::Object(body).to_string().into_bytes(), ..request.clone() };
    Ok(Chat { said, answers, ask: ask(&single)? })
}

fn turn(request: &Request, text: &str, output_tokens: Option<u64>) -> Value {
    let mut turn = Map::new();
    turn.insert("timestamp".to_owned(), milliseconds(request.offset_ns).into());
    turn.insert("text".to_owned(), text.into());
    if let Some(tokens) = output_tokens {
        turn.insert("output_length".to_owned(), tokens.into());
    }
    Value::Object(turn)
}

fn profile(alike: &Alike, kind: &str, usage: Usage<'_>) -> Result<String, String> {
    let (path, ask) = alike.first()?;
    let endpoint = if matches!(ask.prompt, prompt::Prompt::Chat { .. }) { "chat" } else { "completions" };
    let mut words = vec![
        "aiperf profile".to_owned(),
        format!(
            "--model {} --url {BASE_URL} --endpoint-type {endpoint} --endpoint {}",
            quoted(&model(ask)),
            quoted(path)
        ),
        format!("--input-file {} --custom-dataset-type {kind} --fixed-schedule", quoted(usage.file)),
    ];
    if ask.rest.get("stream") == Some(&true.into()) {
        words.push("--streaming".to_owned());
    }
    let mut extra = ask.rest.clone();
    extra.retain(|key, _| !["model", "stream", "stream_options"].contains(&key.as_str()));
    if !extra.is_empty() {
        words.push(format!("--extra-inputs {}", quoted(&Value::Object(extra).to_string())));
    }
    let traps = [
        "Traps:".to_owned(),
        "- The flags are those of AIPerf 0.13's description; they have not been run here.".to_owned(),
        "- The bodies are not the tape's: AIPerf makes its own around the texts.".to_owned(),
    ];
    Ok(command(&words) + &comments(&traps))
}
