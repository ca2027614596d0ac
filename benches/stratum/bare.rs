//! Floors: a loop that writes as many bytes to as many miners, and one that answers each read with a write. They do nothing else.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::Outcome;
use crate::crowd::CLEAN;
use crate::process::{Process, SERVER_CORE, pin};

/// The word on the command line that makes a process of this bench such a loop, for as many miners as follows.
pub const ROLE: &str = "--bare-loop";

/// The word that makes one an echo for as many miners as follows.
pub const ECHO_ROLE: &str = "--bare-echo";
/// What the echo answers, as long as the answer to a submit.
pub const ANSWER: &[u8] = b"{\"id\":100000,\"result\":true,\"error\":null}\n";

/// Takes the miners, then answers whatever one says with one line.
pub fn echo(count: usize) -> Outcome<()> {
    pin(SERVER_CORE);
    let mut streams = accept(count)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (number, stream) in streams.iter().enumerate() {
        epoll::add(&epoll, stream, EventData::new_u64(number as u64), EventFlags::IN)?;
    }
    let (mut events, mut buffer): (Vec<Event>, _) = (Vec::with_capacity(1_024), vec![0; 64 << 10]);
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            let stream = &mut streams[event.data.u64() as usize];
            if stream.read(&mut buffer)? == 0 {
                return Ok(());
            }
            stream.write_all(ANSWER)?;
        }
    }
}

/// Takes the miners, then writes to all of them as many bytes as it is told, whenever it is told.
pub fn play(count: usize) -> Outcome<()> {
    pin(SERVER_CORE);
    let mut streams = accept(count)?;
    for line in io::stdin().lock().lines() {
        let mut bytes = vec![b'0'; line?.parse::<usize>()?.saturating_sub(CLEAN.len())];
        bytes.extend_from_slice(CLEAN);
        for stream in &mut streams {
            stream.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Tells where it listens, and takes so many miners.
fn accept(count: usize) -> Outcome<Vec<TcpStream>> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    let one = |_| -> Outcome<TcpStream> {
        let (stream, _) = listener.accept()?;
        // As the node's sockets are.
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    (0..count).map(one).collect()
}

/// Such a loop, as the load sees it.
pub struct Bare {
    pub process: Process,
    /// Where miners connect.
    pub addr: SocketAddr,
}

impl Bare {
    /// Starts one in this role.
    pub fn start(role: &str, count: usize) -> Outcome<Bare> {
        let mut process = Process::start(role, &count.to_string())?;
        let addr = process.line()?.trim().parse()?;
        Ok(Bare { process, addr })
    }

    /// Has it write so many bytes to each.
    pub fn write(&mut self, bytes: usize) -> Outcome<()> {
        self.process.tell(&format!("{bytes}\n"))
    }
}
