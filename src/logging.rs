//! The log: `log` and env_logger, quiet by default, written by a thread of its own through a bounded pipe.
//!
//! Whoever logs never waits: a stalled terminal costs lines, and how many is told when it reads again.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};

use crate::limits::{LOG_FLUSH_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LOG_PLACE_BYTES_MAX, LOG_REFILL};

/// What is logged where `RUST_LOG` does not say otherwise, by the node.
pub const RUN_LEVELS: &str = "warn,rockpool=info";
/// The same by `demo`, which has a summary to show.
pub const DEMO_LEVELS: &str = "error";

/// Lines that were lost since the start.
static LOST: AtomicU64 = AtomicU64::new(0);

static PIPE: OnceLock<Sender<Line>> = OnceLock::new();

enum Line {
    Text(Vec<u8>),
    /// All before it is written when this is answered.
    Flush(Sender<()>),
}

/// The log's end of the pipe.
struct Pipe {
    lines: Sender<Line>,
    lost: Arc<AtomicU64>,
}

/// Starts the log. `levels` as in `RUST_LOG`, which wins. A second call changes nothing.
pub fn start(levels: &str) -> io::Result<()> {
    let (pipe, lines) = pipe();
    let lost = pipe.lost.clone();
    let sender = pipe.lines.clone();
    let env = env_logger::Env::default().default_filter_or(levels);
    let logger = env_logger::Builder::from_env(env).target(env_logger::Target::Pipe(Box::new(pipe))).format(format).try_init();
    if logger.is_ok() {
        // Not one of the stages: it lives as long as the process, and nothing waits for it but `flush`, and that not for long.
        thread::Builder::new().name("log".into()).spawn(move || write_out(&lines, &lost, &mut io::stderr()))?;
        let _ = PIPE.set(sender);
    }
    Ok(())
}

/// Lines that were lost since the start: whoever reads the log was too slow, or one place of the code said too much.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Waits until what was logged is written, but not for ever: a terminal may never read again.
pub fn flush() {
    let Some(lines) = PIPE.get() else { return };
    let (done, written) = bounded(1);
    if lines.send_timeout(Line::Flush(done), LOG_FLUSH_MAX).is_ok() {
        let _ = written.recv_timeout(LOG_FLUSH_MAX);
    }
}

/// Bytes that each place of the code has logged since the last refill: strangers can make some of them speak as often as they like, and a
/// disk must not fill.
static SPENT: Mutex<Spent> = Mutex::new(BTreeMap::new());

type Spent = BTreeMap<(&'static str, u32), usize>;

/// Whether a place may log so many bytes more, and whether it is told now that it may not.
fn spend(spent: &mut Spent, place: (&'static str, u32), bytes: usize) -> (bool, bool) {
    let so_far = spent.entry(place).or_insert(0);
    let before = *so_far;
    *so_far = before.saturating_add(bytes);
    (*so_far <= LOG_PLACE_BYTES_MAX, before <= LOG_PLACE_BYTES_MAX && *so_far > LOG_PLACE_BYTES_MAX)
}

/// Level, source and text; the time is the reader's (journald, `ts`) to add, or `RUST_LOG`'s debug levels would need a clock here.
fn format(out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> io::Result<()> {
    let mut text = record.args().to_string();
    // What strangers send may stand in a line; it must not begin another, nor paint the terminal.
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    if text.len() > LOG_LINE_BYTES_MAX {
        let end = (0..=LOG_LINE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    let place = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
    let (allowed, told) = spend(&mut SPENT.lock().unwrap_or_else(PoisonError::into_inner), place, text.len());
    if told {
        return writeln!(out, "WARN  {}:{} has logged too much this hour; more of it is dropped", place.0, place.1);
    }
    if allowed {
        return writeln!(out, "{:<5} {text}", record.level());
    }
    LOST.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn pipe() -> (Pipe, Receiver<Line>) {
    let (lines, reader) = bounded(LOG_LINES_MAX);
    (Pipe { lines, lost: Arc::default() }, reader)
}

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until the pipe's other end is gone. A terminal that is gone too is no reason to stop.
fn write_out(lines: &Receiver<Line>, lost: &AtomicU64, out: &mut impl Write) {
    let refill = tick(LOG_REFILL);
    loop {
        let line = select! {
            recv(lines) -> line => line,
            recv(refill) -> _ => {
                SPENT.lock().unwrap_or_else(PoisonError::into_inner).clear();
                continue;
            }
        };
        let Ok(line) = line else { return };
        match line {
            Line::Text(text) => {
                let _ = out.write_all(&text);
            }
            Line::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "WARN  {lost} log lines lost: whoever reads this log was too slow");
        }
    }
}

// A flush is at most two of these; together with the rest of an ordered stop it stays under three seconds (DESIGN §5).
const _: () = assert!(LOG_FLUSH_MAX.as_millis() * 2 <= Duration::from_millis(500).as_millis());

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_reader_costs_lines_and_never_waits() {
        let (mut pipe, reader) = pipe();
        for n in 0..LOG_LINES_MAX + 3 {
            pipe.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        let lost = pipe.lost.clone();
        assert!(super::lost() >= 3);
        drop(pipe);
        let mut out = Vec::new();
        write_out(&reader, &lost, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("line 0\nWARN  3 log lines lost"), "{}", &text[..80]);
        assert_eq!(text.matches("line ").count(), LOG_LINES_MAX);
        assert!(text.ends_with(&format!("line {}\n", LOG_LINES_MAX - 1)));
    }

    #[test]
    fn strangers_cannot_forge_or_flood_lines() {
        let (pipe, reader) = pipe();
        let builder = env_logger::Builder::new()
            .filter_level(log::LevelFilter::Warn)
            .target(env_logger::Target::Pipe(Box::new(pipe)))
            .format(format)
            .build();
        let log =
            |text: &str| log::Log::log(&builder, &log::Record::builder().level(log::Level::Warn).args(format_args!("{text}")).build());
        log("agent \"a\nERROR all is lost\u{1b}[2J\"");
        log(&"é".repeat(LOG_LINE_BYTES_MAX));
        let next = || match reader.try_recv().unwrap() {
            Line::Text(text) => String::from_utf8(text).unwrap(),
            Line::Flush(_) => panic!("no flush was asked"),
        };
        assert_eq!(next(), "WARN  agent \"a ERROR all is lost [2J\"\n");
        let long = next();
        assert!(long.len() <= LOG_LINE_BYTES_MAX + 16 && long.ends_with("…\n"), "{}", long.len());
    }

    #[test]
    fn a_place_that_says_too_much_is_cut_short_and_told_once() {
        let mut spent = Spent::new();
        let half = LOG_PLACE_BYTES_MAX / 2;
        let said = [half, half, 1, 1].map(|bytes| spend(&mut spent, ("src/loud.rs", 7), bytes));
        assert_eq!(said, [(true, false), (true, false), (false, true), (false, false)]);
        assert_eq!(spend(&mut spent, ("src/loud.rs", 8), 1), (true, false), "another place is not its fault");
    }
}
