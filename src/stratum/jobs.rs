//! Jobs: work as miners read it. Boards are shared by all miners of a class and layout; a miner's own job is an id, a reference and a
//! target.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::id::ShareId;
use rockpool_net::payload::Payload;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Script};
use rockpool_store::params::{Network, Params};
use rockpool_store::payouts::Payouts;
use rockpool_store::rules::target::{compact_of, target_bytes};
use rockpool_store::view::ChainView;
use rockpool_workers::template::{Template, Tx};
use rockpool_workers::work::{Kind, VERSION_MASK, Work, WorkError};

use crate::config::Mode;
use crate::limits::{BOARD_AGE_MAX, BOARDS_MAX, FREE_DIFFICULTY_MAX, JOB_AGE_MAX, LINES_SHARED_MAX, SALTS_KEPT, TEMPLATES_PAST_BYTES_MAX};
use crate::stratum::difficulty::{difficulty_of, target_of};

/// Work with what all its jobs have in common, as text.
#[derive(Debug)]
pub struct Board {
    /// Counts boards; submits of one board are told apart by what the miner rolled.
    pub serial: u64,
    /// The work.
    pub work: Arc<Work>,
    made: Duration,
    /// Its jobs may be harder than what they look for, up to this.
    free: Option<f64>,
    coinb1: String,
    /// What of `coinb2` is the same for all miners, in layout *front* nearly all of it.
    coinb2: String,
    branch: String,
}

/// A job as one miner was given it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id; never given to anything else.
    pub id: u64,
    /// What it is made of.
    pub board: Arc<Board>,
    /// Whom its coinbase commits to pay: the same for all jobs of a miner.
    pub script: Arc<Script>,
    /// The share's target that its coinbase commits to, compact.
    pub bits: u32,
    /// Header time that it proposes.
    pub ntime: u32,
    /// What its submits are judged by and credited with.
    pub difficulty: f64,
}

/// The line that tells of a job, and what of it is not the board's, the payee's or the miner's. Miners can share it.
#[derive(Clone, Debug)]
pub struct Told {
    /// The job's id.
    pub id: u64,
    /// Header time that it proposes.
    pub ntime: u32,
    /// The line.
    pub line: Arc<Payload>,
}

impl Job {
    /// What its submits are judged by at most.
    pub fn difficulty_max(&self) -> f64 {
        self.board.difficulty_max(self.bits)
    }
}

/// A target as a difficulty: a share's is what no job that commits to it exceeds.
pub fn share_difficulty(bits: u32) -> f64 {
    difficulty_of(&target_bytes(bits))
}

impl Board {
    fn new(free: Option<f64>, serial: u64, work: Work, made: Duration) -> Board {
        let branch: Vec<String> = work.trim().branch.iter().map(|hash| format!("\"{}\"", hex(hash))).collect();
        let (coinb1, coinb2) = (hex(work.coinb1()), hex(&work.coinb2_shared()));
        Board { serial, free, coinb1, coinb2, branch: branch.join(","), made, work: Arc::new(work) }
    }

    /// The difficulty that none of its jobs which commit to these bits exceeds: that of the target.
    pub fn difficulty_max(&self, bits: u32) -> f64 {
        self.free.unwrap_or_else(|| share_difficulty(if self.pooled() { self.work.draft.bits } else { bits }))
    }

    /// The bits that the coinbase of a job of this difficulty commits to, where these are the share's. In a pool of our own those of the
    /// difficulty, which is what a submit is credited with: else whoever has jobs of many could have each hash credited with the hardest
    /// that it meets.
    pub fn committed(&self, bits: u32, difficulty: f64) -> u32 {
        if self.pooled() { compact_of(&target_of(difficulty)) } else { bits }
    }

    /// Whether its submits are credited each.
    pub fn pooled(&self) -> bool {
        self.work.kind == Kind::Pool
    }

    /// Header version of its jobs: what the template asks for, with every bit clear that a miner may roll.
    pub fn version(&self) -> u32 {
        self.work.template.version & !VERSION_MASK
    }

    /// Header time of its next job: now, and later than the last one that this miner had of the same board, since a device that starts over
    /// at the same coinbase would otherwise hash the same headers again.
    pub fn ntime(&self, now: Now, last: Option<u32>) -> u32 {
        let least = self.work.template.mintime.max(last.map_or(0, |last| last.saturating_add(1)));
        now.unix().max(least).min(self.work.template.maxtime)
    }

    /// The line that gives a job to its miner.
    pub fn notify(&self, params: &Params, (script, bits): (&Script, u32), id: u64, ntime: u32, clean: bool) -> String {
        let template = &self.work.template;
        format!(
            concat!(
                r#"{{"id":null,"method":"mining.notify","params":["{:x}","{}","{}","{}{}",[{}],"{:08x}","{:08x}","{:08x}",{}]}}"#,
                "\n"
            ),
            id,
            hex(&words_reversed(&template.prev)),
            self.coinb1,
            self.coinb2,
            hex(&self.work.coinb2_own(params, script, bits)),
            self.branch,
            self.version(),
            template.bits,
            ntime,
            clean
        )
    }
}

/// What the child of this block pays where our miners are a pool of their own. Who is drawn changes with the block, so that none of the
/// smallest is left out for ever.
pub fn own_payouts(parent: ShareId, parent_height: u32, weights: &Arc<[(Script, u128)]>) -> Payouts {
    Payouts { parent, parent_height, weights: Arc::clone(weights) }
}

/// A hash as `mining.notify` spells a block's parent: the bytes of each four-byte word in reverse, the words in place.
pub fn words_reversed(hash: &[u8; 32]) -> [u8; 32] {
    let mut words = *hash;
    words.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    words
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Work for miners: made when one asks, kept until template or tip change or it grows old.
#[derive(Debug, Default)]
pub struct Boards {
    /// Whom blocks pay.
    pub mode: Mode,
    /// What each miner has in a pool of our own, by script.
    pub credited: Arc<[(Script, u128)]>,
    template: Option<Arc<Template>>,
    /// By class and layout, and by the script that they are for alone while the parent is genesis; `None` serves all.
    boards: BTreeMap<(Class, Layout, Option<Script>), Arc<Board>>,
    /// Of the smallest devices, by the script that they are for.
    lotteries: BTreeMap<Script, Arc<Board>>,
    serial: u64,
    job: u64,
    /// Lines of the newest boards' jobs, by board, script, bits and whether they are clean: most miners can share one.
    lines: BTreeMap<(u64, Script, u32, bool), Told>,
    /// Templates before the newest, newest last: number, and the bytes that nothing but them keeps.
    past: VecDeque<(Weak<Template>, u64, usize)>,
    /// Jobs of templates before this number are no longer taken.
    oldest: u64,
    /// Salts of the last templates, newest last. Miners' jobs keep a template, and nothing else does once there is another.
    salts: VecDeque<(u32, Weak<Template>)>,
    /// It was said once that bitcoind reserves too little for large coinbases.
    advised: bool,
}

impl Boards {
    /// The newest template.
    pub fn template(&self) -> Option<&Arc<Template>> {
        self.template.as_ref()
    }

    /// A new template. Whether what miners had is worthless now: it builds on another block.
    pub fn set_template(&mut self, template: Arc<Template>, rng: &mut ChaCha12Rng) -> bool {
        let clean = self.template.as_ref().is_none_or(|before| before.prev != template.prev);
        let (all, kept) = (template.txs.len(), template.trim(Class::N360).kept);
        if kept < all && !self.advised {
            log::info!(
                "bitcoind's blocks leave too little room for large coinbases: beside one of 360 outputs {kept} of {all} transactions fit; \
                 blockreservedweight=66000 in bitcoin.conf would let it choose which"
            );
            self.advised = true;
        }
        if self.salts.len() == SALTS_KEPT {
            self.salts.pop_front();
        }
        self.salts.push_back((rng.next_u32(), Arc::downgrade(&template)));
        if let Some(before) = self.template.replace(Arc::clone(&template)) {
            self.outlived(&before, &template);
        }
        self.forget();
        clean
    }

    /// A template has a successor. If those before it keep too much that is in no newer one, the jobs of the oldest are given up.
    fn outlived(&mut self, before: &Arc<Template>, next: &Template) {
        let newer: BTreeSet<_> = next.txs.iter().map(Arc::as_ptr).collect();
        let own = before.txs.iter().filter(|tx| !newer.contains(&Arc::as_ptr(tx))).map(|tx| tx.data.len());
        let bytes = own.sum::<usize>() + before.txs.len() * size_of::<Arc<Tx>>();
        // Once this word of it is dropped, jobs alone keep it.
        self.past.push_back((Arc::downgrade(before), before.sequence, bytes));
        self.past.retain(|(template, ..)| template.strong_count() > 0);
        let mut kept = 0;
        for (_, sequence, bytes) in self.past.iter().rev() {
            kept += bytes;
            if kept > TEMPLATES_PAST_BYTES_MAX {
                self.oldest = self.oldest.max(sequence.saturating_add(1));
                break;
            }
        }
    }

    /// Whether a past job is still taken: it is neither too old, nor of a template that would keep too much memory.
    pub fn keeps(&self, job: &Job, now: Now) -> bool {
        now.mono.saturating_sub(job.board.made) < JOB_AGE_MAX && job.board.work.template.sequence >= self.oldest
    }

    /// A job of this board for whoever is paid by this script and commits to these bits. Miners share it, but for one that had a job of the
    /// same board and time before: `last` is that one's time.
    pub fn tell(
        &mut self,
        params: &Params,
        board: &Board,
        (script, bits): (&Script, u32),
        (now, last): (Now, Option<u32>),
        clean: bool,
    ) -> Told {
        let (key, ntime) = ((board.serial, *script, bits, clean), board.ntime(now, last));
        if let Some(told) = self.lines.get(&key).filter(|told| told.ntime == ntime) {
            return told.clone();
        }
        let id = self.job_id();
        let line = board.notify(params, (script, bits), id, ntime, clean);
        let told = Told { id, ntime, line: Arc::new(Payload::new(line.into_bytes())) };
        // Where all miners are paid apart, no line serves two of them.
        if self.lines.len() >= LINES_SHARED_MAX {
            self.lines.clear();
        }
        self.lines.insert(key, told.clone());
        told
    }

    /// Template, tip or payouts are others.
    pub fn forget(&mut self) {
        self.lines.clear();
        self.boards.clear();
        self.lotteries.clear();
    }

    /// Whether a share of this salt was made here.
    pub fn ours(&self, salt: u32) -> bool {
        self.salts.iter().any(|(known, _)| *known == salt)
    }

    /// The template that a share of this salt was made of, while anybody works on it.
    pub fn template_of(&self, salt: u32) -> Option<Arc<Template>> {
        self.salts.iter().find(|(known, _)| *known == salt)?.1.upgrade()
    }

    /// The board of this class and layout for a script, on the share that work builds on; `None` while there is no template.
    pub fn board(
        &mut self,
        params: &Params,
        view: &ChainView,
        (class, layout): (Class, Layout),
        script: &Script,
        now: Now,
    ) -> Option<Result<Arc<Board>, WorkError>> {
        if self.mode == Mode::Solo {
            return self.lottery(params, view, script, now);
        }
        let (template, salt) = (self.template.as_ref()?, self.salts.back()?.0);
        let pool =
            (self.mode == Mode::Standalone).then(|| own_payouts(ShareId(template.prev), template.height.saturating_sub(1), &self.credited));
        let payouts = pool.as_ref().unwrap_or(view.upon());
        let only_for = payouts.weights.is_empty().then_some(*script);
        let key = (class, layout, only_for);
        if let Some(board) = self.boards.get(&key)
            && now.mono.saturating_sub(board.made) < BOARD_AGE_MAX
        {
            return Some(Ok(Arc::clone(board)));
        }
        let next = view.next(params, now);
        let make = if pool.is_some() { Work::pooled } else { Work::new };
        let work = match make(params, Arc::clone(template), &next, payouts, (class, layout), only_for, salt) {
            Ok(work) => work,
            Err(error) => return Some(Err(error)),
        };
        self.serial += 1;
        let board = Arc::new(Board::new(self.free(params), self.serial, work, now.mono));
        // On genesis each script has a board of its own, and strangers may name as many scripts as they like. Jobs hold theirs.
        if self.boards.len() >= BOARDS_MAX {
            self.boards.clear();
        }
        self.boards.insert(key, Arc::clone(&board));
        Some(Ok(board))
    }

    /// A script's board for devices that hold no coinbase of the share chain; `None` while there is no template.
    pub fn lottery(&mut self, params: &Params, view: &ChainView, script: &Script, now: Now) -> Option<Result<Arc<Board>, WorkError>> {
        let (template, salt) = (self.template.as_ref()?, self.salts.back()?.0);
        if let Some(board) = self.lotteries.get(script)
            && now.mono.saturating_sub(board.made) < BOARD_AGE_MAX
        {
            return Some(Ok(Arc::clone(board)));
        }
        let work = match Work::lottery(params, Arc::clone(template), &view.next(params, now), *script, salt) {
            Ok(work) => work,
            Err(error) => return Some(Err(error)),
        };
        self.serial += 1;
        let board = Arc::new(Board::new(self.free(params), self.serial, work, now.mono));
        if self.lotteries.len() >= BOARDS_MAX {
            self.lotteries.clear();
        }
        self.lotteries.insert(*script, Arc::clone(&board));
        Some(Ok(board))
    }

    /// Without a share chain nothing on regtest is hard to find, and a CPU would submit all it hashes.
    fn free(&self, params: &Params) -> Option<f64> {
        (self.mode != Mode::Chain && params.network == Network::Regtest).then_some(FREE_DIFFICULTY_MAX)
    }

    /// Boards at once, lotteries apart.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.boards.len(), self.lotteries.len())
    }

    /// Lines at once.
    #[cfg(test)]
    pub(crate) fn lines_held(&self) -> usize {
        self.lines.len()
    }

    /// A job id that was never given, from 1.
    pub(crate) fn job_id(&mut self) -> u64 {
        self.job += 1;
        self.job
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::stratum::request::{Line, Request, rolled};
    use crate::testing::{at, regtest};
    use rand_chacha::rand_core::SeedableRng;
    use rockpool_net::sha256::sha256d;
    use rockpool_net::wire::share::{Share, merkle_root};
    use rockpool_store::chain::{Chain, Source};
    use rockpool_store::kv::MemKv;
    use rockpool_store::rules::difficulty::hardest_bits;
    use rockpool_store::testing::ShareBuilder;
    use rockpool_workers::embedded::EmbeddedChain;
    use rockpool_workers::work::Roll;
    use serde_json::Value;

    const FORM: (Class, Layout) = (Class::N12, Layout::Tail);

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn word(text: &Value) -> u32 {
        u32::from_str_radix(text.as_str().unwrap(), 16).unwrap()
    }

    /// What firmware does with a `mining.notify`: the header that it hashes.
    fn assembled(notify: &Value, extranonce: &str, ntime: u32, nonce: u32, version: u32) -> [u8; 80] {
        let text = |index: usize| notify[index].as_str().unwrap().to_owned();
        let coinbase = bytes(&format!("{}{extranonce}{}", text(2), text(3)));
        let branch: Vec<[u8; 32]> =
            notify[4].as_array().unwrap().iter().map(|hash| bytes(hash.as_str().unwrap()).try_into().unwrap()).collect();
        let mut header = [0; 80];
        header[..4].copy_from_slice(&version.to_le_bytes());
        header[4..36].copy_from_slice(&words_reversed(&bytes(&text(1)).try_into().unwrap()));
        header[36..68].copy_from_slice(&merkle_root(sha256d(&coinbase), &branch));
        header[68..72].copy_from_slice(&ntime.to_le_bytes());
        header[72..76].copy_from_slice(&word(&notify[6]).to_le_bytes());
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        header
    }

    fn shown(hash: [u8; 32]) -> String {
        rockpool_net::id::ShareId(hash).to_string()
    }

    /// A job that another pool gave to a Bitaxe and the share that came back, with rolled version bits and three siblings.
    #[test]
    fn a_real_job_with_rolled_bits_hashes_as_the_device_did() {
        let notify: Value = serde_json::from_str(concat!(
            r#"["1","171592f223740e92d223f6e68bff25279af7ac4f2246451e0000000200000000","#,
            r#""02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1903c943255c7075626c69632d706f6f6c5c","#,
            r#""ffffffff037a90000000000000160014e6f22ca44dc800e9d049621a3b9a42c509f1c4bc3b0f250000000000160014e6f22ca44dc800e9d049621a3b"#,
            r#"9a42c509f1c4bc0000000000000000266a24aa21a9edbd3d1d916aa0b57326a2d88ebe1b68a1d7c48585f26d8335fe6a94b62755f64c00000000","#,
            r#"["175335649d5e8746982969ec88f52e85ac9917106fba5468e699c8879ab974a1","#,
            r#""d5644ab3e708c54cd68dc5aedc92b8d3037449687f92ec41ed6e37673d969d4a","#,
            r#""5c9ec187517edc0698556cca5ce27e54c96acb014770599ed9df4d4937fbf2b0"],"20000000","192495f8","64b3f3ec",false]"#
        ))
        .unwrap();
        let submit = r#"{"id":5,"method":"mining.submit","params":["a","1","c708000000000000","64b3f3ec","ed460d91","00002000"]}"#;
        let Request::Submit(Ok(submit)) = Line::parse(submit.as_bytes()).unwrap().request() else { panic!("not a submit") };
        // That pool's extranonce2 had four bytes.
        let extranonce = format!("57a6f098{}", hex(&submit.extranonce2[..4]));
        let version = rolled(word(&notify[5]), VERSION_MASK, submit.version_bits).unwrap();
        let header = assembled(&notify, &extranonce, submit.ntime, submit.nonce, version);
        assert_eq!(
            hex(&header),
            concat!(
                "00200020f2921517920e7423e6f623d22725ff8b4facf79a1e45462202000000000000006b5d684a704b4abe62b2375c5326d1fc",
                "1dbb61168aff84e920ba28968bf1075fecf3b364f8952419910d46ed"
            )
        );
        let hash = sha256d(&header);
        assert_eq!(shown(hash), "000000000061d52983863e5c424c00d9e0981874fddf6a8493433e73928a3e4e");
        assert!((difficulty_of(&hash) - 669.868).abs() < 0.001);
    }

    /// Two jobs of other pools on signet, without siblings.
    #[test]
    fn real_jobs_without_transactions_hash_as_their_miners_did() {
        let blocks = [
            (
                "6d600f568f665af26301fcafa53326454b9db355ff5d87f9863a956300000000",
                "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff2c017b000438f9b667049c0fc52d0c",
                concat!(
                    "0a636b706f6f6c0a2f7032706f6f6c76322fffffffff0300111024010000001600148f1b6f0d5a0422afad259ec03977bdf2c74a0376",
                    "00e1f50500000000160014a248cf2f99f449511b22bab1a3d001719f84cd090000000000000000266a24aa21a9ede2f61c3f71d1defd",
                    "3fa999dfa36953755c690689799962b48bebd836974e8cf900000000"
                ),
                ("fdf8b6670000000000000000", 0x67b6_f938, 0xf15f_1590),
                "000000000822bbfaf34d53fc43d0c1382054d3aafe31893020c315db8b0a19f9",
                31.4658,
            ),
            (
                "f5304c7c535061f870374354668bb7087dc26fc39c45ffd0cbdd48c600000000",
                "02000000010000000000000000000000000000000000000000000000000000000000000000ffffffff25029d00010004ecaf496804007670120c",
                concat!(
                    "085032506f6f6c7632ffffffff0200f2052a01000000160014274466e754a1c12d0a2d2cc34ceb70d8e017053a0000000000000000",
                    "266a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf900000000"
                ),
                ("d4f69aeb0000000000000000", 0x6849_afec, 0xe336_74f1),
                "00000000848122e3a6c318528787230e74dc9dc9624b0cb7957df018e941fec8",
                1.93198,
            ),
        ];
        for (prev, coinb1, coinb2, (extranonce, ntime, nonce), wanted, difficulty) in blocks {
            let notify = serde_json::json!(["1", prev, coinb1, coinb2, [], "20000000", "1e0377ae", "", true]);
            let hash = sha256d(&assembled(&notify, extranonce, ntime, nonce, 0x2000_0000));
            assert_eq!(shown(hash), wanted);
            assert!((difficulty_of(&hash) / difficulty - 1.0).abs() < 1e-5);
        }
    }

    /// What a miner makes of our line is what the share is judged by.
    #[test]
    fn our_notify_assembles_to_the_header_of_the_work() {
        let chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        let (view, now, script) = (chain.view(), at(Duration::from_secs(3)), Script::P2wpkh([7; 20]));
        let mut template = EmbeddedChain::new(regtest(), None).template(now.unix());
        template.trims.iter_mut().for_each(|trim| trim.branch = vec![[0xab; 32], [0x01; 32]]);
        template.version |= 0x2000 | 1;
        let mut boards = Boards::default();
        assert!(boards.board(regtest(), &view, FORM, &script, now).is_none());
        assert!(boards.set_template(Arc::new(template), &mut ChaCha12Rng::seed_from_u64(1)));
        for form in Class::ALL.into_iter().flat_map(|class| [(class, Layout::Tail), (class, Layout::Front)]) {
            let board = boards.board(regtest(), &view, form, &script, now).unwrap().unwrap();
            assert_eq!(board.version(), board.work.template.version & !VERSION_MASK);
            assert_eq!(board.version() & 0x2000_2001, 0x2000_0001, "the bits to roll are clear, the others as the template asks");
            for bits in [board.work.draft.bits, hardest_bits(board.work.draft.bits)] {
                let line = board.notify(regtest(), (&script, bits), 0x1f, 0x6000_0001, false);
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(
                    (&line["method"], &line["params"][0], &line["params"][8]),
                    (&"mining.notify".into(), &"1f".into(), &false.into())
                );
                let roll = Roll { extranonce: [3; 12], version: board.version() | 0x2000, ntime: 0x6000_0001, nonce: 77 };
                let header = assembled(&line["params"], &hex(&roll.extranonce), roll.ntime, roll.nonce, roll.version);
                assert_eq!(header, board.work.header(regtest(), &script, bits, &roll), "{form:?}");
                let share = board.work.share(regtest(), &script, bits, &roll);
                assert_eq!((share.header, share.class, share.layout), (header, form.0, form.1));
                assert!(share.tied(&regtest().genesis_id()));
            }
        }
    }

    /// Firmware that reads outputs out of `coinb2` finds them there, and in the other layout nothing but 36 bytes.
    #[test]
    fn outputs_stand_in_coinb2_in_layout_front_alone() {
        let chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        let (view, now, script) = (chain.view(), at(Duration::from_secs(3)), Script::P2wpkh([7; 20]));
        let mut boards = Boards::default();
        boards.set_template(Arc::new(EmbeddedChain::new(regtest(), None).template(now.unix())), &mut ChaCha12Rng::seed_from_u64(1));
        let mut coinb2 = |layout| {
            let board = boards.board(regtest(), &view, (Class::N46, layout), &script, now).unwrap().unwrap();
            let line: Value = serde_json::from_str(&board.notify(regtest(), (&script, board.work.draft.bits), 1, 1, false)).unwrap();
            bytes(line["params"][3].as_str().unwrap())
        };
        assert_eq!(coinb2(Layout::Tail).len(), 36);
        let front = coinb2(Layout::Front);
        let (sequence, outputs) = front.split_at(4);
        assert_eq!((sequence, outputs[0]), (&[0xfe, 0xff, 0xff, 0xff][..], 3));
        assert_eq!((&outputs[1..9], &outputs[9..32]), (&5_000_000_000_u64.to_le_bytes()[..], &[&[22, 0, 20][..], &[7; 20]].concat()[..]));
    }

    #[test]
    fn boards_are_made_anew_for_template_tip_and_age() {
        let chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        let (view, script, mut rng) = (chain.view(), Script::P2wpkh([7; 20]), ChaCha12Rng::seed_from_u64(1));
        let embedded = EmbeddedChain::new(regtest(), None);
        let mut boards = Boards::default();
        let serial = |boards: &mut Boards, second: u64| {
            let now = at(Duration::from_secs(second));
            boards.board(regtest(), &view, FORM, &script, now).unwrap().unwrap().serial
        };
        assert!(boards.set_template(Arc::new(embedded.template(1_700_000_000)), &mut rng));
        assert_eq!((serial(&mut boards, 0), serial(&mut boards, 1)), (1, 1));
        assert_eq!(serial(&mut boards, BOARD_AGE_MAX.as_secs()), 2);
        boards.forget();
        assert_eq!(serial(&mut boards, 21), 3);
        assert!(!boards.set_template(Arc::new(embedded.template(1_700_000_030)), &mut rng), "the same parent leaves past jobs good");
        assert_eq!(serial(&mut boards, 22), 4);
        let other = Script::P2tr([1; 32]);
        let theirs = boards.board(regtest(), &view, FORM, &other, at(Duration::from_secs(22))).unwrap().unwrap();
        assert_eq!(theirs.work.only_for, Some(other), "on genesis each script has a coinbase of its own");
    }

    #[test]
    fn each_class_and_layout_has_one_board_for_all_its_miners() {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        let share = ShareBuilder::new(regtest()).time(1_700_000_000).build(&chain, &chain.tip().id);
        chain.offer(at(Duration::from_secs(1)), &share, Source::Peer);
        chain.confirm(1);
        let (view, now) = (chain.view(), at(Duration::from_secs(3)));
        let mut boards = Boards::default();
        boards.set_template(Arc::new(EmbeddedChain::new(regtest(), None).template(now.unix())), &mut ChaCha12Rng::seed_from_u64(1));
        for round in 0..2 {
            for (index, class) in Class::ALL.into_iter().enumerate() {
                for layout in [Layout::Tail, Layout::Front] {
                    let script = Script::P2wpkh([round * 4 + index as u8; 20]);
                    let board = boards.board(regtest(), &view, (class, layout), &script, now).unwrap().unwrap();
                    assert_eq!(board.serial, 2 * index as u64 + u64::from(layout == Layout::Front) + 1, "made in the first round");
                    assert_eq!((board.work.draft.class, board.work.draft.layout, board.work.only_for), (class, layout, None));
                }
            }
        }
        assert_eq!(boards.held(), (8, 0));
        assert!(boards.held().0 <= BOARDS_MAX);
    }

    /// Elsewhere all of a miner's coinbases were the same. Here not even two nodes that pay one address hash the same job.
    #[test]
    fn two_nodes_with_one_address_hash_different_jobs() {
        let template = Arc::new(EmbeddedChain::new(regtest(), None).template(1_700_000_000));
        let salts = [1, 2].map(|seed| {
            let (mut boards, mut rng) = (Boards::default(), ChaCha12Rng::seed_from_u64(seed));
            boards.set_template(Arc::clone(&template), &mut rng);
            boards.set_template(Arc::new(EmbeddedChain::new(regtest(), None).template(1_700_000_001)), &mut rng);
            boards.salts.iter().map(|(salt, _)| *salt).collect::<Vec<_>>()
        });
        let all: std::collections::BTreeSet<u32> = salts.concat().into_iter().collect();
        assert_eq!(all.len(), 4, "another salt of each node and each template: {salts:?}");
        let share = (**regtest().genesis()).clone();
        let other = Share { salt: share.salt ^ 1, ..share.clone() };
        assert_ne!(share.commitment(&regtest().genesis_id()), other.commitment(&regtest().genesis_id()), "and the coinbase commits to it");
    }

    #[test]
    fn our_salts_are_known_for_a_while() {
        let mut boards = Boards::default();
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let template = Arc::new(EmbeddedChain::new(regtest(), None).template(1_700_000_000));
        boards.set_template(Arc::clone(&template), &mut rng);
        let first = boards.salts[0].0;
        assert!(boards.ours(first) && !boards.ours(first.wrapping_add(1)));
        assert!((0..SALTS_KEPT).all(|_| !boards.set_template(Arc::clone(&template), &mut rng)));
        assert!(!boards.ours(first));
        assert_eq!(boards.salts.len(), SALTS_KEPT);
    }

    #[test]
    fn the_template_of_a_salt_is_known_while_somebody_works_on_it() {
        let mut boards = Boards::default();
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let embedded = EmbeddedChain::new(regtest(), None);
        let worked_on = Arc::new(embedded.template(1_700_000_000));
        boards.set_template(Arc::clone(&worked_on), &mut rng);
        for time in 1..4 {
            boards.set_template(Arc::new(embedded.template(1_700_000_000 + time)), &mut rng);
        }
        let salts: Vec<u32> = boards.salts.iter().map(|(salt, _)| *salt).collect();
        let sequence = |salt| boards.template_of(salt).map(|template| template.sequence);
        assert_eq!(sequence(salts[0]), Some(worked_on.sequence));
        assert_eq!((sequence(salts[1]), sequence(salts[2])), (None, None), "a template is megabytes");
        assert_eq!(sequence(salts[3]), Some(worked_on.sequence + 3));
        assert_eq!(sequence(salts[0].wrapping_add(1)), None);
    }
}
