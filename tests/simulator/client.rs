//! One connection from a host that runs no hub: the hands of miners and of attackers.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::hub::io::{Event, Io, Mail};
use rockpool_net::id::ConnId;
use rockpool_net::pipes::Net;

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Closed,
    Dialling,
    Open,
}

/// A client, alone on its host.
pub struct Client {
    pub host: usize,
    pub server: SocketAddr,
    conn: ConnId,
    pub line: Line,
    /// Whether it reads what comes.
    pub reads: bool,
    /// What came and is not taken.
    pub input: Vec<u8>,
    /// What is to be sent.
    pub output: Vec<u8>,
    mailbox: VecDeque<Mail<()>>,
}

impl Client {
    pub fn new(host: usize, server: SocketAddr) -> Client {
        let conn = ConnId { slot: 0, generation: 0 };
        let (input, output, mailbox) = (Vec::new(), Vec::new(), VecDeque::new());
        Client { host, server, conn, line: Line::Closed, reads: true, input, output, mailbox }
    }

    /// Whether something came for it.
    pub fn has_events(&self, net: &Net) -> bool {
        net.has_events(self.host)
    }

    /// Dials anew; what stood before is closed.
    pub fn dial(&mut self, net: &mut Net) {
        self.close(net);
        self.conn.generation += 1;
        net.io(self.host, &mut self.mailbox).dial(self.conn, self.server).unwrap();
        self.line = Line::Dialling;
    }

    pub fn close(&mut self, net: &mut Net) {
        if self.line != Line::Closed {
            net.io(self.host, &mut self.mailbox).close(self.conn);
        }
        self.line = Line::Closed;
        self.input.clear();
        self.output.clear();
    }

    /// Takes what came. Returns whether the connection stands since now.
    pub fn receive(&mut self, net: &mut Net) -> bool {
        let mut io = net.io(self.host, &mut self.mailbox);
        let (mut events, mut opened, mut ended) = (Vec::new(), false, false);
        io.poll(Duration::ZERO, &mut events).unwrap();
        for event in events {
            let Event::Conn(conn, ready) = event else { continue };
            if conn != self.conn || self.line == Line::Closed {
                continue;
            }
            if self.line == Line::Dialling && ready.writable {
                opened = io.dialled(conn).is_ok();
                ended |= !opened;
                self.line = if opened { Line::Open } else { Line::Dialling };
                io.want_writable(conn, true).unwrap();
            }
            if self.line == Line::Open && (ready.readable || ready.closed) {
                ended |= if self.reads { read_all(&mut io, conn, &mut self.input) } else { ready.closed };
            }
        }
        if ended {
            self.close(net);
        }
        opened && !ended
    }

    /// Sends what the line takes.
    pub fn send(&mut self, net: &mut Net) {
        let mut io = net.io(self.host, &mut self.mailbox);
        while self.line == Line::Open && !self.output.is_empty() {
            match io.write(self.conn, &[IoSlice::new(&self.output)]) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Reads until there is no more. Whether the other side has ended.
fn read_all(io: &mut impl Io, conn: ConnId, input: &mut Vec<u8>) -> bool {
    let mut buf = [0; 4096];
    loop {
        match io.read(conn, &mut buf) {
            Ok(0) => return true,
            Ok(n) => input.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}
