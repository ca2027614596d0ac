//! The floor of giving work to all: a loop that writes as many bytes to as many miners, and does nothing else.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener};

use crate::Outcome;
use crate::crowd::CLEAN;
use crate::process::{Process, SERVER_CORE, pin};

/// The word on the command line that makes a process of this bench such a loop, for as many miners as follows.
pub const ROLE: &str = "--bare-loop";

/// Takes the miners, then writes to all of them as many bytes as it is told, whenever it is told.
pub fn play(count: usize) -> Outcome<()> {
    pin(SERVER_CORE);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let (stream, _) = listener.accept()?;
        // As the node's sockets are.
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    for line in io::stdin().lock().lines() {
        let mut bytes = vec![b'0'; line?.parse::<usize>()?.saturating_sub(CLEAN.len())];
        bytes.extend_from_slice(CLEAN);
        for stream in &mut streams {
            stream.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Such a loop, as the load sees it.
pub struct Bare {
    process: Process,
    /// Where miners connect.
    pub addr: SocketAddr,
}

impl Bare {
    /// Starts one.
    pub fn start(count: usize) -> Outcome<Bare> {
        let mut process = Process::start(ROLE, &count.to_string())?;
        let addr = process.line()?.trim().parse()?;
        Ok(Bare { process, addr })
    }

    /// Has it write so many bytes to each.
    pub fn write(&mut self, bytes: usize) -> Outcome<()> {
        self.process.tell(&format!("{bytes}\n"))
    }
}
