//! Event streams: what an idle one holds, what an event costs, what they do to a miner's submits, and the end of one that does not read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType, connect, socket};

use crate::Outcome;
use crate::figures::{goal, info};
use crate::load::Load;
use crate::node::{SHARE_EVERY, Server};
use crate::probe::{EVERY, Probe};
use crate::process::settle;
use crate::report::{Asked, Figure};
use crate::requests::{reactor, share_of};

/// Streams.
const STREAMS: usize = 500;
/// Goal: memory of one.
const KIB: f64 = 8.0;
/// Floods after which one that does not read must be gone.
const FLOODS_MAX: u32 = 200;
/// Time that the first words of all streams take to be sent and read.
const BEGIN: Duration = Duration::from_secs(3);

/// All of it.
pub fn figures(asked: &Asked) -> Outcome<Vec<Figure>> {
    let time = Duration::from_secs(if asked.quick { 4 } else { 20 });
    let mut server = Server::start()?;
    let mut probe = Probe::connect(server.stratum, 3 * (time.as_millis() / EVERY.as_millis()) as usize)?;
    let mut load = Load::new()?;
    load.with(&mut probe, |load, probe| load.listen(BEGIN, Some(probe)))?;
    probe.took.clear();
    let (mut alone, cpu_alone, _) = measured(&server, &mut load, &mut probe, time)?;
    settle();
    let before = server.process.memory()?;
    for _ in 0..STREAMS - 1 {
        load.stream(TcpStream::connect(server.http)?)?;
    }
    load.listen(BEGIN, None)?;
    let after = server.process.memory()?;
    let each = |bytes: f64| bytes / 1024.0 / (STREAMS - 1) as f64;
    let mut figures = vec![
        goal(format!("memory per idle stream, {} of them", STREAMS - 1), each(after.1 - before.1), "KiB", KIB),
        info(format!("memory per idle stream, {} of them: shared pages too", STREAMS - 1), each(after.0 - before.0), "KiB"),
    ];
    let mut deaf = small(&server)?;
    deaf.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let (mut among, cpu, bytes) = measured(&server, &mut load, &mut probe, time)?;
    let events = time.as_secs_f64() / SHARE_EVERY.as_secs_f64();
    let per_event = (cpu.saturating_sub(cpu_alone)).as_secs_f64() * 1e6 / events / STREAMS as f64;
    figures.push(info("bytes per event and stream, the status a second among them".into(), bytes / events / (STREAMS - 1) as f64, "bytes"));
    figures.push(info("the reactor's CPU per event and stream, the status a second among them".into(), per_event, "us"));
    figures.push(info(
        "the reactor's CPU for all streams".into(),
        cpu.saturating_sub(cpu_alone).as_secs_f64() / time.as_secs_f64() * 100.0,
        "%",
    ));
    for (name, of) in [("p50", 500), ("p99", 990)] {
        figures.push(info(format!("submit to true, without streams: {name}"), share_of(&mut alone, of), "ms"));
        figures.push(info(format!("submit to true, {STREAMS} streams and an event every 100 ms: {name}"), share_of(&mut among, of), "ms"));
    }
    let floods = cut(&mut server)?;
    // All who read are there and have heard all of it.
    load.listen(BEGIN, None)?;
    figures.push(info("floods of 100 events, 13 kB, until one of them that does not read is cut".into(), floods, "floods"));
    Ok(figures)
}

/// Floods all streams until one is cut: how many floods it took.
fn cut(server: &mut Server) -> Outcome<f64> {
    let mut metrics = TcpStream::connect(server.http)?;
    for floods in 1..FLOODS_MAX {
        server.process.tell("flood\n")?;
        metrics.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let text = body(&mut metrics)?;
        let cut = text.lines().find_map(|line| line.strip_prefix("rockpool_streams_cut")?.split(' ').next_back()?.parse::<u64>().ok());
        match cut {
            Some(0) => settle(),
            Some(1) => return Ok(f64::from(floods)),
            other => return Err(format!("{other:?} streams were cut").into()),
        }
    }
    Err("no stream was cut".into())
}

/// The answer's body.
fn body(stream: &mut TcpStream) -> Outcome<String> {
    let (mut text, mut buffer) = (String::new(), vec![0; 64 << 10]);
    loop {
        let count = stream.read(&mut buffer)?;
        text += std::str::from_utf8(&buffer[..count])?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split("\r\n").next()).ok_or("no length")?;
        if body.len() >= length.parse()? {
            return Ok(body.to_owned());
        }
    }
}

/// What submits took in this time, and of it the reactor's, and the bytes of all streams.
fn measured(server: &Server, load: &mut Load, probe: &mut Probe, time: Duration) -> Outcome<(Vec<Duration>, Duration, f64)> {
    settle();
    let (before, bytes) = (reactor(server)?, load.streamed.iter().sum::<usize>());
    load.with(probe, |load, probe| load.listen(time, Some(probe)))?;
    let cpu = reactor(server)? - before;
    Ok((std::mem::take(&mut probe.took), cpu, (load.streamed.iter().sum::<usize>() - bytes) as f64))
}

/// A connection for which the system holds little.
fn small(server: &Server) -> Outcome<TcpStream> {
    let socket: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_recv_buffer_size(&socket, 4 << 10)?;
    connect(&socket, &server.http)?;
    Ok(socket.into())
}
