//! What is counted.

use std::error::Error;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::task::Poll;

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokentape::replay::Target;
use tokentape::replay::connection::Connector;
use tokentape::replay::exchange::{Ending, Exchange, News};
use tokentape::replay::plan::Prepared;
use tokentape::replay::reading::Reading;
use tokentape::tape::{Header, Reader, Request, VERSION, Writer};
use tokentape::timeline::{Outcome, Timeline};

/// A part of the hot path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Part {
    Client,
    Mock,
    Tape,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Client, Self::Mock, Self::Tape];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Mock => "mock",
            Self::Tape => "tape",
        }
    }

    /// The smaller of the two numbers of items.
    pub(crate) const fn items(self) -> usize {
        match self {
            Self::Client | Self::Tape => 1000,
            // What it takes to start is not always the same to the last instruction.
            Self::Mock => 4000,
        }
    }

    /// What is not to be counted.
    pub(crate) fn prepare(self, items: usize, file: &Path) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Client | Self::Mock => Ok(()),
            Self::Tape => write_tape(items, file),
        }
    }

    /// What is.
    pub(crate) fn run(self, items: usize, file: &Path) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Client => {
                let timeline = receive(items)?;
                // A role before them, and after them usage and the end.
                let complete = timeline.outcome == Outcome::Success && timeline.events.len() == items + 3;
                if complete {
                    Ok(())
                } else {
                    Err(format!("not the stream that was sent: {timeline:?}").into())
                }
            }
            Self::Mock => Err("the mock is a process of its own".into()),
            Self::Tape => {
                let reader = Reader::open(file)?;
                let read = reader.requests().collect::<Result<Vec<_>, _>>()?.len();
                if read == items { Ok(()) } else { Err(format!("{read} records instead of {items}").into()) }
            }
        }
    }
}

pub(crate) fn no_valgrind(error: io::Error) -> Box<dyn Error> {
    format!("valgrind cannot be started ({error}); install it: instructions are counted by its callgrind")
        .into()
}

/// A chat request of about a kilobyte.
fn request(index: u64) -> Request {
    let prompt = "Tell me about the tape and what it holds. ".repeat(20);
    let body = format!(
        "{{\"model\":\"tokentape\",\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}{index}\"}}],\
         \"max_tokens\":100,\"stream\":true}}"
    );
    Request {
        index,
        offset_ns: index * 1_000_000,
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        body: body.into_bytes(),
        input_tokens: Some(200),
        output_tokens: Some(100),
        session: None,
    }
}

fn write_tape(records: usize, file: &Path) -> Result<(), Box<dyn Error>> {
    let header = Header {
        version: VERSION,
        created_by: "instructions".to_owned(),
        source: "random".to_owned(),
        params: serde_json::Map::new(),
        seed: None,
        tokenizer: None,
    };
    let mut writer = Writer::new(File::create(file)?, &header)?;
    for index in 0..records as u64 {
        writer.write(&request(index))?;
    }
    writer.finish()?;
    Ok(())
}

/// What a server sends, a write each: the head, and then the events of a stream of so many tokens, as vLLM makes them.
fn writes(tokens: usize) -> Vec<Vec<u8>> {
    let event = |rest: &str| {
        let data = format!(
            "data: {{\"id\":\"chatcmpl-0f8fad5bd9cb469fa16570867728950e\",\"object\":\"chat.completion.chunk\",\
             \"created\":1795498805,\"model\":\"tokentape\",\"choices\":[{rest}}}\n\n"
        );
        format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    let role = "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]";
    let token = "{\"index\":0,\"delta\":{\"content\":\" tape\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]";
    let usage = "],\"usage\":{\"prompt_tokens\":200,\"total_tokens\":300,\"completion_tokens\":100}";
    let mut writes = vec![head.as_bytes().to_vec(), event(role)];
    writes.extend(std::iter::repeat_n(event(token), tokens));
    writes.extend([event(usage), b"e\r\ndata: [DONE]\n\n\r\n".to_vec(), b"0\r\n\r\n".to_vec()]);
    writes
}

/// The client: one request whose answer comes event by event, each when the one before it has been read.
fn receive(tokens: usize) -> Result<Timeline, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = Target::new(&format!("http://{}", listener.local_addr()?))?;
    let connector = Connector::new(&target)?;
    let request = Prepared::new(request(0))?;
    let writes = writes(tokens);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let mut connection = connector.open().await?;
        let (mut server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        let (told, news) = channel();
        let mut exchange = Exchange::new(&request, 0, 0, 0);
        exchange.collector = Some(told);
        let mut reading = Reading::default();
        let mut collect = || {
            for news in news.try_iter() {
                if let News::Part { part, .. } = news {
                    reading.read(part);
                }
            }
        };
        let mut writes = writes.iter();
        let ending = {
            let mut answer = pin!(connection.send(&request, &target, &mut exchange));
            poll_fn(|cx| {
                let polled = answer.as_mut().poll(cx);
                collect();
                match (polled, writes.next()) {
                    (Poll::Pending, Some(write)) => match server.write_all(write) {
                        Ok(()) => Poll::Pending,
                        Err(error) => Poll::Ready(Ending::Broken(error.to_string())),
                    },
                    (polled, _) => polled,
                }
            })
            .await
        };
        exchange.ending = ending;
        exchange.stamps = connection.finish();
        Ok(exchange.timeline_after(reading, 0))
    })
}

/// The mock: started by this command, asked for one answer of so many tokens, and stopped.
pub(crate) fn ask_mock(mut valgrind: Command, tokens: usize, truth_log: &Path) -> Result<(), Box<dyn Error>> {
    valgrind
        .arg(env!("CARGO_BIN_EXE_tokentape"))
        .args(["mock", "--port", "0", "--ttft", "1ms", "--itl", "0ms"]);
    valgrind.arg("--truth-log").arg(truth_log).stdout(Stdio::piped());
    let mut mock = valgrind.spawn().map_err(no_valgrind)?;
    let mut line = String::new();
    BufReader::new(mock.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening on http://").ok_or("the mock did not start")?;
    let answered = ask(address, tokens);
    kill(Pid::from_raw(i32::try_from(mock.id())?), Signal::SIGTERM)?;
    let status = mock.wait()?;
    let events = answered?;
    if events != tokens + 2 {
        return Err(format!("the mock sent {events} events instead of {}", tokens + 2).into());
    }
    if status.success() { Ok(()) } else { Err(format!("the mock ended with {status}").into()) }
}

/// How many events an answer of so many tokens has.
fn ask(address: &str, tokens: usize) -> Result<usize, Box<dyn Error>> {
    let body = format!(
        "{{\"model\":\"tokentape\",\"messages\":[{{\"role\":\"user\",\"content\":\"Go on.\"}}],\
         \"max_tokens\":{tokens},\"stream\":true}}"
    );
    let mut socket = TcpStream::connect(address)?;
    write!(
        socket,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.matches("data: ").count())
}
