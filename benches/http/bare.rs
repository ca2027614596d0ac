//! The floor: a loop that answers each read with the same bytes, and does nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::Outcome;
use crate::process::{Process, SERVER_CORE, pin};

/// The word on the command line that makes a process of this bench such a loop, for answers of so many bytes of body as follow.
pub const ROLE: &str = "--bare-http";

const LISTENER: u64 = u64::MAX;

/// Runs until it is killed. Says on standard output where it listens.
pub fn play(body: usize) -> Outcome<()> {
    pin(SERVER_CORE);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {body}\r\nConnection: keep-alive\r\n\r\n");
    let answer = [head.as_bytes(), &vec![b'x'; body]].concat();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let (mut events, mut buffer): (Vec<Event>, _) = (Vec::with_capacity(1_024), vec![0; 64 << 10]);
    let mut streams: Vec<TcpStream> = Vec::new();
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                let (stream, _) = listener.accept()?;
                // As the node's sockets are.
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                epoll::add(&epoll, &stream, EventData::new_u64(streams.len() as u64), EventFlags::IN)?;
                streams.push(stream);
                continue;
            }
            let stream = &mut streams[event.data.u64() as usize];
            match stream.read(&mut buffer) {
                Ok(1..) => stream.write_all(&answer)?,
                Ok(0) | Err(_) => epoll::delete(&epoll, stream)?,
            }
        }
    }
}

/// Starts one. Where it listens.
pub fn start(body: usize) -> Outcome<(Process, SocketAddr)> {
    let mut process = Process::start(ROLE, &body.to_string())?;
    let addr = process.line()?.trim().parse()?;
    Ok((process, addr))
}
