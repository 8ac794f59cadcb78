//! A tape's responses, for the mock to play: looked up by what was asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokentape_mock::recordings::{Call, Head, Played, Recorded, Recordings};

use crate::tape::{Entry, Error, Outcome, Reader, Response};

/// When the pieces of a response go out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Timing {
    /// As fast as they can.
    Fast,
    /// As they came, but so many times as fast.
    Speed(f64),
    /// As they came.
    #[default]
    Recorded,
}

/// What is done about a request that the tape has no response to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Miss {
    /// The mock's own model answers.
    Model,
    /// 404, with what was looked for.
    #[default]
    NotFound,
}

/// The responses of a tape, in memory: none waits for a disk. Several to one request (the same method, path and body) are
/// played in the order in which they were asked for, and then from the first one again.
#[derive(Debug)]
pub struct Playback {
    answers: HashMap<blake3::Hash, Answers>,
    miss: Miss,
}

#[derive(Debug, Default)]
struct Answers {
    /// In order of their requests.
    recorded: Vec<(u64, Recorded)>,
    played: AtomicUsize,
}

impl Playback {
    /// Reads all of a tape's responses.
    pub fn load(tape: &Reader, timing: Timing, miss: Miss) -> Result<Self, Error> {
        let mut answers: HashMap<_, Answers> = HashMap::new();
        let mut unanswered = HashMap::new();
        for entry in tape.entries() {
            match entry? {
                Entry::Request(request) => {
                    let call = Call { method: &request.method, path: &request.path, body: &request.body };
                    unanswered.insert(request.index, key(&call));
                }
                Entry::Response(response) => {
                    if let Some(key) = unanswered.remove(&response.index) {
                        let index = response.index;
                        answers.entry(key).or_default().recorded.push((index, timing.recorded(response)));
                    }
                }
            }
        }
        for answers in answers.values_mut() {
            answers.recorded.sort_by_key(|(index, _)| *index);
        }
        Ok(Self { answers, miss })
    }

    /// How many responses there are.
    #[must_use]
    pub fn responses(&self) -> usize {
        self.answers.values().map(|answers| answers.recorded.len()).sum()
    }
}

impl Recordings for Playback {
    fn play(&self, call: &Call<'_>) -> Played {
        let Some(answers) = self.answers.get(&key(call)) else {
            return match self.miss {
                Miss::Model => Played::Left,
                Miss::NotFound => Played::Missing,
            };
        };
        let turn = answers.played.fetch_add(1, Ordering::Relaxed) % answers.recorded.len();
        Played::Response(answers.recorded[turn].1.clone())
    }
}

/// What a response is looked up by: BLAKE3 over method, path and body, each but the last with its length before it.
fn key(call: &Call<'_>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in [call.method, call.path] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(call.body);
    hasher.finalize()
}

impl Timing {
    /// A response as it is played.
    fn recorded(self, response: Response) -> Recorded {
        let Response { head, chunks, body, end_ns, outcome, .. } = response;
        let mut body = Bytes::from(body);
        let pieces = chunks.iter().map(|chunk| {
            // A tape's reader has seen that the chunks add up to the body.
            let bytes = body.split_to(body.len().min(chunk.bytes as usize));
            (self.at(chunk.at_ns), bytes)
        });
        Recorded {
            pieces: pieces.filter(|(_, bytes)| !bytes.is_empty()).collect(),
            head: head.map(|head| Head {
                status: head.status,
                headers: head.headers,
                at_ns: self.at(head.at_ns),
            }),
            breaks_ns: (outcome != Outcome::Complete).then(|| self.at(end_ns)),
        }
    }

    fn at(self, recorded_ns: u64) -> u64 {
        match self {
            Self::Fast => 0,
            Self::Speed(speed) => crate::tape::edit::scale::at_speed(recorded_ns, speed),
            Self::Recorded => recorded_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;
    use crate::tape::{Chunk, Header, Request, ResponseHead, VERSION, Writer};

    /// Three requests, the first and the last alike, whose responses come in the opposite order; and one without any.
    fn tape() -> (NamedTempFile, Reader) {
        let file = NamedTempFile::new().unwrap();
        let header = Header {
            version: VERSION,
            created_by: "tokentape test".to_owned(),
            source: "test".to_owned(),
            params: serde_json::Map::new(),
            seed: None,
            tokenizer: None,
        };
        let mut writer = Writer::new(file.as_file(), &header).unwrap();
        for (index, body) in ["a", "b", "a", "none"].into_iter().enumerate() {
            let request = Request {
                index: index as u64,
                offset_ns: 0,
                method: "POST".to_owned(),
                path: "/p?q".to_owned(),
                body: body.into(),
                input_tokens: None,
                output_tokens: None,
                session: None,
            };
            writer.write(&request).unwrap();
        }
        for index in [2, 1, 0] {
            let head =
                ResponseHead { status: 200, headers: vec![("x".to_owned(), "y".to_owned())], at_ns: 10 };
            let chunks = [(20, 1), (20, 0), (40, 2)].map(|(at_ns, bytes)| Chunk { at_ns, bytes });
            let body = format!("<{index}>").into_bytes();
            let outcome = if index == 1 { Outcome::ServerGone } else { Outcome::Complete };
            let response =
                Response { index, head: Some(head), chunks: chunks.into(), body, end_ns: 50, outcome };
            writer.response(&response).unwrap();
        }
        writer.finish().unwrap();
        let reader = Reader::open(file.path()).unwrap();
        (file, reader)
    }

    fn said(playback: &Playback, path: &str, body: &str) -> Option<String> {
        match playback.play(&Call { method: "POST", path, body: body.as_bytes() }) {
            Played::Response(recorded) => {
                let bytes: Vec<u8> = recorded.pieces.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
                Some(String::from_utf8(bytes).unwrap())
            }
            Played::Left | Played::Missing => None,
        }
    }

    #[test]
    fn answers_to_one_question_come_in_the_order_of_asking() {
        let (_file, reader) = tape();
        let playback = Playback::load(&reader, Timing::Recorded, Miss::NotFound).unwrap();
        assert_eq!(playback.responses(), 3);
        let said = |body| said(&playback, "/p?q", body);
        assert_eq!([said("a"), said("a"), said("a")].map(Option::unwrap), ["<0>", "<2>", "<0>"]);
        assert_eq!((said("b").as_deref(), said("none"), said("")), (Some("<1>"), None, None));
    }

    #[test]
    fn a_miss_is_as_asked_for() {
        let (_file, reader) = tape();
        let missed = |miss| {
            let playback = Playback::load(&reader, Timing::Recorded, miss).unwrap();
            playback.play(&Call { method: "POST", path: "/p", body: b"a" })
        };
        assert!(matches!(missed(Miss::NotFound), Played::Missing));
        assert!(matches!(missed(Miss::Model), Played::Left));
    }

    #[test]
    fn times_are_the_recorded_ones_or_shorter() {
        let (_file, reader) = tape();
        let times = |timing, body: &str| {
            let playback = Playback::load(&reader, timing, Miss::NotFound).unwrap();
            let call = Call { method: "POST", path: "/p?q", body: body.as_bytes() };
            let Played::Response(recorded) = playback.play(&call) else { panic!("missed") };
            let pieces: Vec<u64> = recorded.pieces.iter().map(|(at_ns, _)| *at_ns).collect();
            (recorded.head.unwrap().at_ns, pieces, recorded.breaks_ns)
        };
        assert_eq!(times(Timing::Recorded, "a"), (10, vec![20, 40], None));
        assert_eq!(times(Timing::Speed(2.0), "b"), (5, vec![10, 20], Some(25)));
        assert_eq!(times(Timing::Fast, "b"), (0, vec![0, 0], Some(0)));
    }
}
