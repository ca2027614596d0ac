//! Servers in processes of their own: started, pinned, asked, measured, ended.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs, thread};

use crate::contenders::BITCOIND;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long bitcoind may take to listen.
const BITCOIND_STARTS: Duration = Duration::from_secs(30);
/// The servers have the first processor to themselves, the load another one.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// What this process may run on, as it was at first.
static CORES: OnceLock<CpuSet> = OnceLock::new();

/// A contender's server, ended when this is dropped.
pub struct Server {
    pub addr: SocketAddr,
    child: Child,
    said: Option<BufReader<ChildStdout>>,
    _datadir: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one with room for so many peers.
    pub fn start(contender: &str, peers: usize) -> io::Result<Server> {
        pin(SERVER_CORE)?;
        let server = if contender == BITCOIND { Server::bitcoind() } else { Server::own(contender, peers) };
        pin(LOAD_CORE)?;
        server
    }

    fn own(contender: &str, peers: usize) -> io::Result<Server> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--serve", contender, &peers.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = child.stdout.take().map(BufReader::new);
        let port = line(&mut said)?;
        let port = port.trim().parse::<u16>().map_err(io::Error::other)?;
        Ok(Server { addr: ([127, 0, 0, 1], port).into(), child, said, _datadir: None })
    }

    #[expect(clippy::disallowed_methods, reason = "a foreign process tells nobody when it listens")]
    fn bitcoind() -> io::Result<Server> {
        let exe = bitcoind().ok_or_else(|| io::Error::other("BITCOIND_EXE is not set"))?;
        let datadir = tempfile::tempdir()?;
        // Free until a moment ago; bitcoind cannot be told to take any.
        let addr = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let flags = "-regtest -server=0 -listen=1 -listenonion=0 -i2pacceptincoming=0 -connect=0 -dnsseed=0 -discover=0 -disablewallet \
            -nodebuglogfile -maxconnections=1100 -whitelist=noban@127.0.0.0/8";
        let mut command = Command::new(exe);
        command.args(flags.split_whitespace()).arg(format!("-bind={addr}")).arg(format!("-datadir={}", datadir.path().display()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut server = Server { addr, child, said: None, _datadir: Some(datadir) };
        let mut waited = Duration::ZERO;
        while TcpStream::connect(addr).is_err() {
            if waited > BITCOIND_STARTS || server.child.try_wait()?.is_some() {
                return Err(io::Error::other("bitcoind does not listen"));
            }
            thread::sleep(Duration::from_millis(20));
            waited += Duration::from_millis(20);
        }
        Ok(server)
    }

    /// What a server of ours tells of itself.
    pub fn stats(&mut self) -> io::Result<serde_json::Value> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| io::Error::other("it cannot be asked"))?;
        stdin.write_all(b"stats\n")?;
        serde_json::from_str(&line(&mut self.said)?).map_err(io::Error::other)
    }

    /// Nanoseconds that its threads have spent on a core, in user space and for it in the kernel. Exact while it waits: a thread that runs
    /// is told of up to its last tick.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).ok_or_else(|| unclear("schedstat"))?;
        }
        Ok(sum)
    }

    /// Bytes of its own memory that are resident: no files, no kernel buffers.
    pub fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| unclear("RssAnon"))? << 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its datadir is thrown away: nothing is lost.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(said: &mut Option<BufReader<ChildStdout>>) -> io::Result<String> {
    let mut line = String::new();
    match said.as_mut().map(|said| said.read_line(&mut line)) {
        Some(Ok(1..)) => Ok(line),
        Some(Err(error)) => Err(error),
        _ => Err(io::Error::other("the server has ended")),
    }
}

/// A figure that a process does not tell.
pub fn unclear(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not told"))
}

/// bitcoind, where there is one.
pub fn bitcoind() -> Option<OsString> {
    env::var_os("BITCOIND_EXE")
}

/// Puts this thread, and the processes that it starts, on one processor: so servers and load do not take turns. Where there is but one,
/// they have to.
fn pin(core: usize) -> io::Result<()> {
    let all = CORES.get_or_init(|| sched_getaffinity(None).unwrap_or_default());
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
    let Some(cpu) = allowed.nth(core.min(all.count().saturating_sub(1) as usize)) else { return Ok(()) };
    let mut cores = CpuSet::new();
    cores.set(cpu);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Lets this process and its children open as many files as they may. Returns how many that is.
pub fn raise_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Refused, it stays what it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize)
}

/// The server's side: tells its port, answers each line of stdin with its state, and ends the process with stdin.
#[expect(clippy::disallowed_methods, reason = "the main thread serves for ever")]
pub fn announce(addr: SocketAddr, stats: impl Fn() -> serde_json::Value + Send + 'static) -> io::Result<()> {
    println!("{}", addr.port());
    let body = move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            println!("{}", stats());
        }
        std::process::exit(0)
    };
    thread::Builder::new().name("stdin".into()).spawn(body).map(drop)
}
