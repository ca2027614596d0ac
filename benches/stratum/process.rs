//! Processes of this bench: started, pinned, told apart by what they take.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Outcome;

/// The servers have the first processor to themselves, the load another one.
pub const SERVER_CORE: usize = 0;
pub const LOAD_CORE: usize = 1;
/// Open files that two crowds of 10,000 need, and some.
const FILES: u64 = 21_000;

/// The processor of this number for the calling thread and what it starts from here on, where the machine has two.
pub fn pin(core: usize) {
    let cores = fs::read_to_string("/proc/cpuinfo").map_or(1, |text| text.lines().filter(|line| line.starts_with("processor")).count());
    if cores > 1 {
        let mut set = CpuSet::new();
        set.set(core);
        // Without it the figures are less steady, no more.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Any processor for all threads of this process but those of this name.
pub fn unpin_all_but(name: &str) -> Outcome<()> {
    let mut set = CpuSet::new();
    [SERVER_CORE, LOAD_CORE].into_iter().for_each(|core| set.set(core));
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let number = task.file_name().to_str().and_then(|number| number.parse().ok()).and_then(Pid::from_raw);
        if fs::read_to_string(task.path().join("comm"))?.trim() != name {
            // As above.
            let _ = sched_setaffinity(number, &set);
        }
    }
    Ok(())
}

/// Lets this process open as many files as it may, or as it needs where it may raise that.
pub fn raise_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(FILES, |maximum| maximum.max(FILES));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).is_err() {
        // Refused, it stays what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// How many files this process may open.
pub fn files() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize)
}

/// A process of this bench in another role. It ends when this is dropped.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one.
    pub fn start(role: &str, word: &str) -> Outcome<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args([role, word]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = child.stdout.take().ok_or("no standard output")?;
        Ok(Process { child, input, output: BufReader::new(output) })
    }

    /// What it says next.
    pub fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the server has ended".into());
        }
        Ok(line)
    }

    /// Tells it something.
    pub fn tell(&mut self, line: &str) -> Outcome<()> {
        Ok(self.input.write_all(line.as_bytes())?)
    }

    /// Time that its threads have spent on a processor, by name. Exact while they wait.
    pub fn cpu(&self) -> Outcome<BTreeMap<String, Duration>> {
        let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            let read = |name: &str| fs::read_to_string(task.join(name));
            let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
            let nanos = times.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            *threads.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(nanos);
        }
        Ok(threads)
    }

    /// Memory, bytes: resident, and of that its own.
    pub fn memory(&self) -> Outcome<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| -> Outcome<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line in status")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
        };
        Ok((bytes("VmRSS:")?, bytes("RssAnon:")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until nothing that was begun is still on its way through a server. It tells nobody when it is done.
#[expect(clippy::disallowed_methods, reason = "a server tells nobody when it has come to rest, and a figure of a bench is no assertion")]
pub fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}
