//! The bare client: one thread, one epoll, non-blocking sockets, the kernel's stamps, and nothing of tokentape's own
//! sending or parsing. It sends a tape's bodies in a closed loop, counts `data: ` in what comes back, and stamps each.
//!
//! What it spends is what the system calls cost. It takes no error into account that a real server could make.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, IoSliceMut, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::cmsg_space;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokentape::tape::Reader;

/// What the client has to say of one request, in ns of the monotonic clock.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Answer {
    /// The answer's id.
    pub(crate) id: String,
    /// Just before the request was written.
    pub(crate) dispatched_ns: u64,
    /// When the bytes of each event had arrived.
    pub(crate) events_ns: Vec<u64>,
}

/// Sends the tape's first `requests` requests after one more a stream to warm up, with `streams` of them in flight, and
/// writes an [`Answer`] a line.
pub(crate) fn run(
    tape: &Path,
    address: SocketAddr,
    requests: usize,
    streams: usize,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut queue = VecDeque::new();
    for request in Reader::open(tape)?.requests().take(requests + streams) {
        let request = request?;
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            request.method,
            request.path,
            request.body.len(),
        );
        queue.push_back([head.as_bytes(), &request.body].concat());
    }
    let ahead_ns = wall_ahead_ns()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut slots = Vec::new();
    for token in 0..streams.min(queue.len()) {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token as u64))?;
        slots.push(Slot {
            socket,
            body: Vec::new(),
            scanned: 0,
            dispatched_ns: 0,
            events_ns: Vec::new(),
            is_warm: false,
        });
    }
    for slot in &mut slots {
        slot.send(&mut queue)?;
    }
    let mut answers = Vec::with_capacity(requests);
    let mut ready = vec![EpollEvent::empty(); 1024];
    let mut busy = slots.len();
    while busy > 0 {
        let count = epoll.wait(&mut ready, EpollTimeout::NONE)?;
        for event in &ready[..count] {
            let slot = &mut slots[usize::try_from(event.data())?];
            if slot.receive(ahead_ns)? {
                let answer = slot.answer()?;
                if std::mem::replace(&mut slot.is_warm, true) {
                    answers.push(answer);
                }
                busy -= usize::from(!slot.send(&mut queue)?);
            }
        }
    }
    let mut file = BufWriter::new(File::create(output)?);
    for answer in &answers {
        serde_json::to_writer(&mut file, answer)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

struct Slot {
    socket: TcpStream,
    /// The answer so far, its head and framing included.
    body: Vec<u8>,
    /// How much of it has been looked through.
    scanned: usize,
    dispatched_ns: u64,
    events_ns: Vec<u64>,
    is_warm: bool,
}

impl Slot {
    /// Sends the next request; whether there was one. A request is smaller than a socket's buffer.
    fn send(&mut self, queue: &mut VecDeque<Vec<u8>>) -> io::Result<bool> {
        let Some(request) = queue.pop_front() else { return Ok(false) };
        self.dispatched_ns = tokentape_pacer::monotonic_ns();
        self.socket.write_all(&request)?;
        Ok(true)
    }

    /// Reads until nothing is left; whether the answer is complete.
    fn receive(&mut self, ahead_ns: i64) -> Result<bool, Box<dyn Error>> {
        const MARK: &[u8] = b"data: ";
        let mut buffer = [0; 16 * 1024];
        loop {
            let (bytes, stamp_ns) = match receive(&self.socket, &mut buffer) {
                Ok((0, _)) => return Err("the server closed the connection".into()),
                Ok(received) => received,
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            // The kernel begins to stamp a moment after the first socket asks for it: in the warm-up.
            let arrived_ns = match stamp_ns {
                Some(stamp_ns) => u64::try_from(stamp_ns - ahead_ns)?,
                None => tokentape_pacer::monotonic_ns(),
            };
            self.body.extend_from_slice(&buffer[..bytes]);
            let from = self.scanned.saturating_sub(MARK.len() - 1);
            let marks = memchr::memmem::find_iter(&self.body[from..], MARK).count();
            self.events_ns.extend(std::iter::repeat_n(arrived_ns, marks));
            self.scanned = self.body.len();
            if self.body.ends_with(b"\r\n0\r\n\r\n") {
                return Ok(true);
            }
            // A read that leaves room has emptied the socket; the next bytes are another edge.
            if bytes < buffer.len() {
                return Ok(false);
            }
        }
    }

    /// What was received, and a clean slot.
    fn answer(&mut self) -> Result<Answer, Box<dyn Error>> {
        let body = std::mem::take(&mut self.body);
        self.scanned = 0;
        let text = std::str::from_utf8(&body)?;
        let (_, rest) = text.split_once("\"id\":\"").ok_or("an answer without an id")?;
        let id = rest.split('"').next().unwrap_or_default().to_owned();
        Ok(Answer { id, dispatched_ns: self.dispatched_ns, events_ns: std::mem::take(&mut self.events_ns) })
    }
}

/// The number of bytes, and when the last of them arrived, in ns of the wall clock.
fn receive(socket: &TcpStream, buffer: &mut [u8]) -> nix::Result<(usize, Option<i64>)> {
    let mut control = cmsg_space!(TimeSpec);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(at.tv_sec() * 1_000_000_000 + at.tv_nsec()),
        _ => None,
    });
    Ok((message.bytes, stamp))
}

/// How far the wall clock is ahead of the monotonic one, in ns, from the closest of a few readings.
fn wall_ahead_ns() -> Result<i64, Box<dyn Error>> {
    let mut closest = (u64::MAX, 0);
    for _ in 0..16 {
        let before_ns = tokentape_pacer::monotonic_ns();
        let wall = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let after_ns = tokentape_pacer::monotonic_ns();
        let wall_ns = wall.tv_sec() * 1_000_000_000 + wall.tv_nsec();
        let reading = (after_ns - before_ns, wall_ns - i64::try_from(before_ns.midpoint(after_ns))?);
        closest = closest.min(reading);
    }
    Ok(closest.1)
}
