//! Limits over real sockets: file descriptors, kernel buffers, ends of all kinds.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{ACCEPT_PAUSE, OUTBOX_HARD_BYTES, SOCKET_SEND_BYTES};
use rockpool_net::payload::Payload;
use rockpool_net::transport::Wrapping;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::loopback::House;

/// Says to the test's own binary that it is to run the test with few file descriptors: their limit is the process's.
const FEW_FILES: &str = "ROCKPOOL_TEST_FEW_FILES";
/// What the kernel may hold for one reader: Linux doubles what is asked for on both sides, and loopback holds a segment or two.
const KERNEL_BYTES_MAX: u64 = 3 * SOCKET_SEND_BYTES as u64 + (128 << 10);

/// A client that never reads, with a small buffer of its own.
fn deaf(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket
}

/// Turns for a while; a wake ends the wait where nothing happens.
fn run_for(house: &mut House, time: Duration) {
    let end = house.reactor.clock().now().mono + time;
    while house.reactor.clock().now().mono < end {
        let soon = house.hub.outlet().now().mono + Duration::from_millis(100);
        house.hub.outlet().set_wake(Some(soon));
        house.turn();
    }
}

#[test]
fn out_of_file_descriptors_it_serves_who_is_there_rests_and_recovers() {
    if std::env::var_os(FEW_FILES).is_some() {
        return with_few_files();
    }
    let name = "sockets::out_of_file_descriptors_it_serves_who_is_there_rests_and_recovers";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let done = child.args(["--exact", name]).env(FEW_FILES, "1").output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

fn with_few_files() {
    const CLIENTS: usize = 60;
    const FIT: u64 = 20;
    let mut house = House::new();
    let addr = house.addr();
    // They stand before the limit falls: the kernel takes them in, and accepting is what fails.
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let next = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().as_raw_fd() as u64;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + FIT), ..before }).unwrap();
    house.until(|house| house.hub.counters().accept_pauses.get() > 0);
    assert_eq!(house.node.opened.len() as u64, FIT);

    // A quiet second and more: it looks again every `ACCEPT_PAUSE`, and does not spin.
    let (turns, start) = (house.hub.counters().turns.get(), house.reactor.clock().now().mono);
    while house.reactor.clock().now().mono < start + Duration::from_secs(1) {
        house.turn();
    }
    let passed = (house.reactor.clock().now().mono - start).as_millis() / ACCEPT_PAUSE.as_millis();
    let turns = house.hub.counters().turns.get() - turns;
    assert!(u128::from(turns) <= 2 * passed + 5, "{turns} turns in {passed} rests");

    // Who is there is served meanwhile.
    clients[0].write_all(b"hello\n").unwrap();
    house.until(|house| house.hub.counters().bytes_out.get() == 6);
    let mut echo = [0; 6];
    clients[0].read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello\n");

    // Half of those who were let in leave; as many more as that makes room for come in, both their own descriptors and ours being free.
    clients.drain(..10);
    house.until(|house| house.node.opened.len() == 40);
    assert_eq!(house.node.closed.len(), 10);
    setrlimit(Resource::Nofile, before).unwrap();
    house.until(|house| house.node.opened.len() == CLIENTS);
    assert_eq!((house.hub.conns(), house.node.closed.len()), (CLIENTS - 10, 10));
    let pauses = house.hub.counters().accept_pauses.get();
    run_for(&mut house, 3 * ACCEPT_PAUSE);
    assert_eq!(house.hub.counters().accept_pauses.get(), pauses, "all is well again");
}

#[test]
fn three_hundred_who_never_read_are_cut_and_the_kernel_holds_little_for_each() {
    const DEAF: usize = 295;
    let mut house = House::new();
    let addr = house.addr();
    let deaf: Vec<Socket> = (0..DEAF).map(|_| deaf(addr)).collect();
    let mut honest = TcpStream::connect(addr).unwrap();
    house.until(|house| house.node.opened.len() == DEAF + 1);
    let port = |conn: ConnId, house: &mut House| house.hub.outlet().addr(conn).map(|addr| addr.port());
    let mine = honest.local_addr().unwrap().port();
    let conns: Vec<ConnId> = house.node.opened.iter().map(|(conn, _)| *conn).collect();
    let reader = conns.iter().copied().find(|&conn| port(conn, &mut house) == Some(mine)).unwrap();
    let said = Arc::new(Payload::new(vec![7; 16 << 10]));
    honest.set_nonblocking(true).unwrap();
    let (mut sent, mut got, mut buf) = (0, 0, vec![0; 64 << 10]);
    let mut rounds = 0;
    while house.node.closed.len() < DEAF {
        conns.iter().for_each(|&conn| house.hub.outlet().send(conn, Arc::clone(&said)));
        sent += said.bytes().len();
        // The honest one keeps up: what was sent to it is read before more is said.
        while got < sent {
            house.turn();
            match honest.read(&mut buf) {
                Ok(n) => got += n,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        rounds += 1;
        assert!(rounds < 2_000, "{} are still there", DEAF - house.node.closed.len());
    }
    assert!(house.node.closed.iter().all(|(conn, why)| *conn != reader && matches!(why, CloseReason::SlowReader(_))));
    let held = (house.hub.counters().bytes_out.get() - got as u64) / DEAF as u64;
    assert!(held > 0 && held < KERNEL_BYTES_MAX, "{held} bytes for each");
    assert_eq!(house.hub.conns(), 1);
    drop(deaf);
}

#[test]
fn the_kernel_holds_little_for_who_was_dialled_and_never_reads() {
    let mut house = House::new();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_recv_buffer_size(32 << 10).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(1).unwrap();
    let listener: TcpListener = listener.into();
    let conn = house.hub.outlet().dial(Lane::Stratum, listener.local_addr().unwrap(), Wrapping::V1).unwrap();
    house.until(|house| house.node.opened.len() == 1);
    let (_stream, _) = listener.accept().unwrap();
    house.hub.outlet().send_bytes(conn, vec![0; OUTBOX_HARD_BYTES]);
    run_for(&mut house, Duration::from_millis(600));
    let written = house.hub.counters().bytes_out.get();
    assert!(written > 0 && written < KERNEL_BYTES_MAX, "{written}");
    assert_eq!(house.hub.outlet().unsent(), OUTBOX_HARD_BYTES - written as usize);
}

#[test]
fn who_resets_while_we_write_is_told_of_once_and_leaves_nothing() {
    const CLIENTS: usize = 50;
    let mut house = House::new();
    let addr = house.addr();
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| deaf(addr)).collect();
    house.until(|house| house.node.opened.len() == CLIENTS);
    let conns: Vec<ConnId> = house.node.opened.iter().map(|(conn, _)| *conn).collect();
    conns.iter().for_each(|&conn| house.hub.outlet().send_bytes(conn, vec![1; 500_000]));
    house.turn();
    assert!(house.hub.outlet().unsent() > 0);
    for client in clients {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
    }
    house.until(|house| house.node.closed.len() == CLIENTS);
    run_for(&mut house, Duration::from_millis(300));
    assert_eq!((house.node.closed.len(), house.hub.conns(), house.hub.outlet().unsent()), (CLIENTS, 0, 0));
    let mut told: Vec<ConnId> = house.node.closed.iter().map(|(conn, _)| *conn).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), CLIENTS);
    let fair = |why: &CloseReason| matches!(why, CloseReason::Socket(_) | CloseReason::Remote);
    assert!(house.node.closed.iter().all(|(_, why)| fair(why)), "{:?}", house.node.closed);
}

#[test]
fn who_has_said_all_and_only_listens_gets_all_his_answers() {
    const LINES: usize = 20_000;
    let mut house = House::new();
    let addr = house.addr();
    let said: Vec<u8> = (0..LINES).flat_map(|i| format!("{i:0>60}\n").into_bytes()).collect();
    let all = said.clone();
    let client = move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let mut echoed = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(&said).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            stream.read_to_end(&mut echoed).unwrap();
        });
        echoed
    };
    std::thread::scope(|scope| {
        let client = scope.spawn(client);
        house.until(|house| house.node.closed.len() == 1);
        assert!(client.join().unwrap() == all, "all of it, and then the end");
    });
    assert_eq!(house.node.closed[0].1, CloseReason::Remote);
}
