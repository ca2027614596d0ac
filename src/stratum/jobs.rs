//! Jobs: work as miners read it. Boards are shared by all miners of a class; a miner's own job is an id, a reference and a target.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Script};
use rockpool_store::params::Params;
use rockpool_store::view::ChainView;
use rockpool_workers::template::Template;
use rockpool_workers::work::{VERSION_MASK, Work, WorkError};

use crate::limits::{BOARD_AGE_MAX, SALTS_KEPT};
use crate::stratum::difficulty::difficulty_of;

/// The class that is served: a coinbase that every device holds.
const CLASS: Class = Class::N12;

/// Work with what all its jobs have in common, as text.
#[derive(Debug)]
pub struct Board {
    /// Counts boards; submits of one board are told apart by what the miner rolled.
    pub serial: u64,
    /// The work.
    pub work: Arc<Work>,
    /// The share's own target as a difficulty: no job is harder.
    pub difficulty_max: f64,
    made: Duration,
    coinb1: String,
    branch: String,
}

/// A job as one miner was given it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id; never given twice.
    pub id: u64,
    /// What it is made of.
    pub board: Arc<Board>,
    /// Whom its coinbase commits to pay.
    pub script: Script,
    /// What its submits are judged by and credited with.
    pub difficulty: f64,
    /// Header time that it proposes.
    pub ntime: u32,
}

impl Board {
    fn new(serial: u64, work: Work, made: Duration) -> Board {
        let branch: Vec<String> = work.template.branch.iter().map(|hash| format!("\"{}\"", hex(hash))).collect();
        let difficulty_max = difficulty_of(&work.share_target());
        Board { serial, coinb1: hex(work.coinb1()), branch: branch.join(","), difficulty_max, made, work: Arc::new(work) }
    }

    /// Header version of its jobs: what the template asks for, with every bit clear that a miner may roll.
    pub fn version(&self) -> u32 {
        self.work.template.version & !VERSION_MASK
    }

    /// Header time of its next job: now, and later than the last one that this miner had of the same board, since a device that starts over
    /// at the same coinbase would otherwise hash the same headers again.
    pub fn ntime(&self, now: Now, last: Option<u32>) -> u32 {
        let least = self.work.template.mintime.max(last.map_or(0, |last| last.saturating_add(1)));
        now.unix().max(least)
    }

    /// The line that gives a job to its miner.
    pub fn notify(&self, params: &Params, script: &Script, id: u64, ntime: u32, clean: bool) -> String {
        let template = &self.work.template;
        format!(
            concat!(
                r#"{{"id":null,"method":"mining.notify","params":["{:x}","{}","{}","{}",[{}],"{:08x}","{:08x}","{:08x}",{}]}}"#,
                "\n"
            ),
            id,
            hex(&words_reversed(&template.prev)),
            self.coinb1,
            hex(&self.work.coinb2(params, script)),
            self.branch,
            self.version(),
            template.bits,
            ntime,
            clean
        )
    }
}

/// A hash as `mining.notify` spells a block's parent: the bytes of each four-byte word in reverse, the words in place.
pub fn words_reversed(hash: &[u8; 32]) -> [u8; 32] {
    let mut words = *hash;
    words.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    words
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Work for miners: made when one asks, kept until template or tip change or it grows old.
#[derive(Debug, Default)]
pub struct Boards {
    template: Option<Arc<Template>>,
    /// By the script that they are for alone, while the parent is genesis; `None` serves all.
    boards: BTreeMap<Option<Script>, Arc<Board>>,
    serial: u64,
    job: u64,
    /// Salts of the last templates, newest last.
    salts: VecDeque<u32>,
}

impl Boards {
    /// The newest template.
    pub fn template(&self) -> Option<&Arc<Template>> {
        self.template.as_ref()
    }

    /// A new template. Whether what miners had is worthless now: it builds on another block.
    pub fn set_template(&mut self, template: Arc<Template>, rng: &mut ChaCha12Rng) -> bool {
        let clean = self.template.as_ref().is_none_or(|before| before.prev != template.prev);
        self.template = Some(template);
        if self.salts.len() == SALTS_KEPT {
            self.salts.pop_front();
        }
        self.salts.push_back(rng.next_u32());
        self.boards.clear();
        clean
    }

    /// Template, tip or payouts are others.
    pub fn forget(&mut self) {
        self.boards.clear();
    }

    /// Whether a share of this salt was made here.
    pub fn ours(&self, salt: u32) -> bool {
        self.salts.contains(&salt)
    }

    /// The board for a script at the confirmed tip; `None` while there is no template.
    pub fn board(&mut self, params: &Params, view: &ChainView, script: &Script, now: Now) -> Option<Result<Arc<Board>, WorkError>> {
        let (template, salt) = (self.template.as_ref()?, *self.salts.back()?);
        let payouts = view.payouts();
        let only_for = payouts.weights.is_empty().then_some(*script);
        if let Some(board) = self.boards.get(&only_for) {
            if now.mono.saturating_sub(board.made) < BOARD_AGE_MAX {
                return Some(Ok(Arc::clone(board)));
            }
        }
        let next = view.next(params, now);
        let work = match Work::new(params, Arc::clone(template), &next, payouts, CLASS, only_for, salt) {
            Ok(work) => work,
            Err(error) => return Some(Err(error)),
        };
        self.serial += 1;
        let board = Arc::new(Board::new(self.serial, work, now.mono));
        self.boards.insert(only_for, Arc::clone(&board));
        Some(Ok(board))
    }

    /// A job id that was never given, from 1.
    pub fn job_id(&mut self) -> u64 {
        self.job += 1;
        self.job
    }
}
