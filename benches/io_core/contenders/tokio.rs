//! tokio as one would write it for this work: one thread (`current_thread`), a task per connection, a buffer of its own, one write for all
//! that a read has brought. What goes to all is tried at once on every socket, which is the cheapest that tokio has.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::{LocalSet, spawn_local};

use crate::process::announce;
use crate::wire::answer;

/// Bytes of a task's buffer: a batch of the load fits.
const BUFFER_BYTES: usize = 8 << 10;

type All = Rc<RefCell<Vec<Rc<OwnedWriteHalf>>>>;

pub fn serve() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, listen())
}

async fn listen() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    announce(listener.local_addr()?, || serde_json::Value::Null)?;
    let all = All::default();
    loop {
        let stream = listener.accept().await?.0;
        stream.set_nodelay(true)?;
        spawn_local(peer(stream, Rc::clone(&all)));
    }
}

async fn peer(stream: TcpStream, all: All) {
    let (reader, writer) = stream.into_split();
    let writer = Rc::new(writer);
    all.borrow_mut().push(Rc::clone(&writer));
    // However it ends, the connection ends with it.
    let _ = run(reader, &writer, &all).await;
    all.borrow_mut().retain(|other| !Rc::ptr_eq(other, &writer));
}

async fn run(mut reader: OwnedReadHalf, writer: &Rc<OwnedWriteHalf>, all: &All) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let (mut out, mut shares) = (Vec::new(), Vec::new());
    while reader.read_buf(&mut buffer).await? > 0 {
        out.clear();
        let used = answer(&buffer, false, &mut out, |share| shares.push(share))?;
        buffer.drain(..used);
        write_all(writer, &out).await?;
        for share in shares.drain(..) {
            for other in all.borrow().iter().filter(|other| !Rc::ptr_eq(other, writer)) {
                // Who does not take it at once misses it. In this bench all take it.
                let _ = other.try_write(&share);
            }
        }
    }
    Ok(())
}

async fn write_all(writer: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writer.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
