//! A thread per peer, as seed 002's `RunPeerLoop`, read in its favour: it blocks in `read` instead of polling for room that is always
//! there, judges all messages that a read has brought instead of one, and answers them with one write. What goes to all is written by who
//! has it, under a lock per socket, instead of waking a thread for each.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::process::announce;
use crate::wire::{answer, bad};

/// Bytes of a thread's buffer: a batch of the load fits.
const BUFFER_BYTES: usize = 8 << 10;
/// Bytes of a thread's stack: it is mapped, not resident.
const STACK_BYTES: usize = 128 << 10;

/// A peer's socket for who writes.
type Writer = Arc<Mutex<TcpStream>>;
type All = Arc<Mutex<Vec<Writer>>>;

pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    announce(listener.local_addr()?, || serde_json::Value::Null)?;
    let all = All::default();
    loop {
        let stream = listener.accept()?.0;
        stream.set_nodelay(true)?;
        let all = Arc::clone(&all);
        let body = move || {
            // However it ends, the connection ends with it.
            let _ = peer(stream, &all);
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(body)?;
    }
}

fn peer(mut stream: TcpStream, all: &All) -> io::Result<()> {
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    lock(all).push(Arc::clone(&writer));
    let end = run(&mut stream, &writer, all);
    lock(all).retain(|other| !Arc::ptr_eq(other, &writer));
    end
}

fn run(stream: &mut TcpStream, writer: &Writer, all: &All) -> io::Result<()> {
    let (mut buffer, mut held) = (vec![0; BUFFER_BYTES], 0);
    let (mut out, mut shares) = (Vec::new(), Vec::new());
    loop {
        let read = stream.read(&mut buffer[held..])?;
        if read == 0 {
            return Err(bad("end"));
        }
        held += read;
        out.clear();
        let used = answer(&buffer[..held], false, &mut out, |share| shares.push(share))?;
        buffer.copy_within(used..held, 0);
        held -= used;
        if !out.is_empty() {
            lock(writer).write_all(&out)?;
        }
        for share in shares.drain(..) {
            let others = lock(all).clone();
            for other in others.iter().filter(|other| !Arc::ptr_eq(other, writer)) {
                // Its own thread sees the end of a socket that takes nothing any more.
                let _ = lock(other).write_all(&share);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
