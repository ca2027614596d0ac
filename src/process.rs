//! What the system tells of this process, as Prometheus' libraries name it. Looked up off the reactor, by the thread that watches it.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rockpool_net::reactor::Clock;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What was last seen; zeros before the first look.
static SEEN: Seen = Seen {
    resident: AtomicU64::new(0),
    open_fds: AtomicU64::new(0),
    max_fds: AtomicU64::new(0),
    cpu_us: AtomicU64::new(0),
    start: AtomicU64::new(0),
};

struct Seen {
    resident: AtomicU64,
    open_fds: AtomicU64,
    max_fds: AtomicU64,
    cpu_us: AtomicU64,
    start: AtomicU64,
}

/// A figure of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Its whole name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its value.
    pub value: f64,
}

/// Looks anew. It reads files of the system, so it is not for the reactor. The first look is taken for the start.
pub fn look() {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    SEEN.cpu_us.store(cpu.tv_sec as u64 * 1_000_000 + cpu.tv_nsec as u64 / 1_000, Relaxed);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    SEEN.resident.store(resident(&status).unwrap_or(0), Relaxed);
    SEEN.open_fds.store(fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64), Relaxed);
    SEEN.max_fds.store(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), Relaxed);
    let _ = SEEN.start.compare_exchange(0, Clock::start().now().wall.as_secs(), Relaxed, Relaxed);
}

/// Bytes in memory, of what the system says of a process.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The figures as they were last seen; none where nobody looks.
pub fn figures() -> Option<[Figure; 5]> {
    if SEEN.start.load(Relaxed) == 0 {
        return None;
    }
    let figure = |name, kind, help, value: &AtomicU64| Figure { name, kind, help, value: value.load(Relaxed) as f64 };
    let cpu = figure("process_cpu_seconds_total", "counter", "Processor time that the process has used, in seconds.", &SEEN.cpu_us);
    Some([
        Figure { value: cpu.value / 1e6, ..cpu },
        figure("process_resident_memory_bytes", "gauge", "Memory of the process that is in RAM, in bytes.", &SEEN.resident),
        figure("process_open_fds", "gauge", "File descriptors that are open.", &SEEN.open_fds),
        figure("process_max_fds", "gauge", "File descriptors that may be open.", &SEEN.max_fds),
        figure("process_start_time_seconds", "gauge", "When the process started, in Unix seconds.", &SEEN.start),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_this_process() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nThreads:\t1\n"), Some(1_234 << 10));
        assert_eq!([resident(""), resident("VmRSS:\t12 MB\n"), resident("VmRSS:\t x kB\n")], [None; 3]);
        look();
        let [cpu, memory, open, most, start] = figures().map(|figures| figures.map(|figure| figure.value)).unwrap_or_default();
        assert!(cpu > 0.0 && memory > 1e6 && open >= 3.0 && most >= open && start > 1.6e9, "{:?}", figures());
    }
}
