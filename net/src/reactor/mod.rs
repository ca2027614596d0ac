//! The hub's world in the node: sockets by `mio`, the clock, and the mailbox that stages post to.
//!
//! The only place in the crate that names `mio`. Sockets do not block; what one turn does with them is the hub's to say.

mod clock;
mod postbox;
mod sockets;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use mio::{Events, Interest, Poll, Token, Waker};
use rand_chacha::ChaCha12Rng;
use thiserror::Error;

pub use self::clock::{Clock, Heartbeat};
pub use self::postbox::Postbox;

use self::sockets::Sockets;
use crate::hub::io::{Dispatch, Event, Io, Mail, Stage};
use crate::hub::{Hub, TurnReport};
use crate::id::ConnId;
use crate::limits::RECEIVE_SPARE;
use crate::time::Now;
use crate::times::{SlowTurn, StageTimes};

/// Events of one poll; what is more comes with the next. Few enough that what the kernel holds of so many sockets is still in the
/// processor's cache when their answers are written.
const EVENTS: usize = RECEIVE_SPARE;
/// The waker's token; listeners count down from below it, connections up from 0.
const WAKER: Token = Token(usize::MAX);

/// Why a reactor cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr}: {error}; choose another address or port, or stop who has it")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The system gives no poll or no waker.
    #[error("cannot set up the event loop: {0}; the limit of open files may be too low")]
    Poll(#[from] io::Error),
}

/// The reactor: drives a hub over real sockets, in the thread that calls [`Reactor::turn`].
#[derive(Debug)]
pub struct Reactor<A> {
    poll: Poll,
    polled: Events,
    sockets: Sockets,
    mailbox: Receiver<Vec<Mail<A>>>,
    /// Mail of a message that is not all taken yet.
    open: VecDeque<Mail<A>>,
    postbox: Postbox<A>,
    clock: Clock,
    heartbeat: Heartbeat,
    /// The stage that runs, and since when.
    running: (Stage, Duration),
    /// What the stages of this turn took.
    spent: StageTimes,
}

impl<A> Reactor<A> {
    /// Listens on these addresses (port 0: one that is free), in the order of the hub's rows. `conns_max` is the hub's
    /// [`conns_max`](crate::hub::HubConfig::conns_max); `mailbox_max` bounds the messages that wait in the mailbox.
    pub fn new(listeners: &[SocketAddr], conns_max: usize, mailbox_max: usize) -> Result<Reactor<A>, StartError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let sockets = Sockets::new(poll.registry().try_clone()?, listeners, conns_max)?;
        let (sender, mailbox) = bounded(mailbox_max);
        let clock = Clock::start();
        Ok(Reactor {
            poll,
            polled: Events::with_capacity(EVENTS),
            sockets,
            mailbox,
            open: VecDeque::new(),
            postbox: Postbox::new(sender, waker),
            clock,
            heartbeat: Heartbeat::new(clock),
            running: (Stage::Poll, clock.mono()),
            spent: StageTimes::default(),
        })
    }

    /// A way into the mailbox, for a stage's thread. Clones are cheap.
    pub fn postbox(&self) -> Postbox<A> {
        self.postbox.clone()
    }

    /// Where it listens, in the order of the rows, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        self.sockets.local_addrs()
    }

    /// The clock; stages that need the same monotonic time copy it.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Tells from any thread how long the current turn has been running, for the watchdog.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// No turn follows any more: what the node still has to do before it ends has this time, and as much as a turn, in the watchdog's eyes.
    pub fn leave(&self, grace: Duration) {
        self.heartbeat.leave(grace);
    }

    /// Runs one turn of the hub and measures it. The caller loops until its node wants to stop.
    pub fn turn(&mut self, hub: &mut Hub<A>, rng: &mut ChaCha12Rng, node: &mut impl Dispatch<Answer = A>) -> io::Result<TurnReport> {
        // The turn begins where the last one ended: the clock is read where a stage ends, and nowhere else.
        let began = self.running.1;
        self.spent = StageTimes::default();
        self.heartbeat.begin(began);
        let now = Now { mono: began, ..hub.outlet().now() };
        let report = hub.turn(now, rng, self, node)?;
        self.stage(Stage::Poll);
        self.heartbeat.rest();
        hub.times().record(SlowTurn { began, times: self.spent, report });
        Ok(report)
    }
}

impl<A> Io for Reactor<A> {
    type Answer = A;

    fn poll(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<Now> {
        // A mailbox that is not empty has a wake under way, so the wait is short in any case.
        self.heartbeat.rest();
        let polled = self.poll.poll(&mut self.polled, Some(timeout));
        let now = self.clock.now();
        self.ends(now.mono, Stage::Read);
        self.heartbeat.begin(now.mono);
        match polled {
            Ok(()) => self.sockets.translate(&self.polled, events),
            // A signal: its own thread sees to it.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(now)
    }

    fn mail(&mut self) -> Option<Mail<A>> {
        loop {
            if let Some(mail) = self.open.pop_front() {
                return Some(mail);
            }
            self.open = self.mailbox.try_recv().ok()?.into();
        }
    }

    fn accept(&mut self, listener: usize, conn: ConnId) -> io::Result<SocketAddr> {
        self.sockets.accept(listener, conn)
    }

    fn dial(&mut self, conn: ConnId, addr: SocketAddr) -> io::Result<()> {
        self.sockets.dial(conn, addr)
    }

    fn dialled(&mut self, conn: ConnId) -> io::Result<()> {
        self.sockets.dialled(conn)
    }

    fn read(&mut self, conn: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self.sockets.stream(conn)?, buf)
    }

    fn write(&mut self, conn: ConnId, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.sockets.stream(conn)?;
        match bufs {
            // The usual case, for which the kernel has a shorter way.
            [one] => io::Write::write(stream, one),
            more => io::Write::write_vectored(stream, more),
        }
    }

    fn want_writable(&mut self, conn: ConnId, want: bool) -> io::Result<()> {
        self.sockets.interest(conn, if want { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE })
    }

    fn finish(&mut self, conn: ConnId) -> io::Result<()> {
        self.sockets.stream(conn)?.shutdown(Shutdown::Write)
    }

    fn close(&mut self, conn: ConnId) {
        self.sockets.close(conn);
    }

    fn stage(&mut self, stage: Stage) {
        if stage != self.running.0 {
            self.ends(self.clock.mono(), stage);
        }
    }
}

impl<A> Reactor<A> {
    /// The stage that runs ends now, and this one begins.
    fn ends(&mut self, now: Duration, next: Stage) {
        let (stage, since) = std::mem::replace(&mut self.running, (next, now));
        self.spent.add(stage, now.saturating_sub(since));
    }
}
