//! Emission: judges miners' submits. What hashing there is to do, is done here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Script};
use rockpool_store::params::{Network, Params};
use rockpool_store::pplns::PplnsShare;
use rockpool_store::rules::target::{target_bytes, work_of};

use crate::jobs::{Answer, EmissionJob, OrganiseJob, Output, Stage, SubmitJob, SubmitRefusal};
use crate::limits::{COMMITMENTS_MAX, EMISSION_SLICE};
use crate::work::{Kind, NTIME_AHEAD_MAX_S, Roll, VERSION_MASK, Work, meets};

/// What tells the jobs of one work apart: whom they pay, their bits and their form.
type Form = (Script, u32, Class, Layout);

/// Judges submits: a refusal, a pat on the back, a share, a block.
pub struct EmissionWorker {
    params: &'static Params,
    /// Bounded by the tickets: each job holds one.
    queue: VecDeque<EmissionJob>,
    /// What the newest jobs commit to: all submits of a job share it. By the payee, the bits and the form, with the work that it is of,
    /// which is told by its place: a weak reference holds that, but not the template.
    commitments: BTreeMap<Form, (Weak<Work>, [u8; 32])>,
}

impl EmissionWorker {
    /// A worker for this network.
    pub fn new(params: &'static Params) -> EmissionWorker {
        EmissionWorker { params, queue: VecDeque::new(), commitments: BTreeMap::new() }
    }

    /// Judges one submit. Whether it found a block.
    fn judge(&mut self, now: Now, job: EmissionJob, out: &mut Output) -> bool {
        let EmissionJob { mut claim, work, script, bits, extranonce, version, ntime, nonce, target, unpaid, ticket } = job;
        let roll = Roll { extranonce, version, ntime, nonce };
        let refusal = refuse(now, &work.template, version, ntime).or_else(|| {
            let other = work.only_for.is_some_and(|only| only != script);
            other.then_some(SubmitRefusal::Refused("this work pays another script"))
        });
        if let Some(refusal) = refusal {
            out.mail.push((Answer::Verdict { claim, result: Err(refusal) }, vec![ticket]));
            return false;
        }
        let hash = sha256d(&work.header_of(&self.commitment(&work, &script, bits), &roll));
        claim.achieved = difficulty_of(&hash);
        // The job's own bits are what its coinbase commits to; a hash that meets only easier ones is no share. In a pool of our own they
        // are but the difficulty that it is credited with.
        let meets_bits = meets(&hash, &target_bytes(if work.kind == Kind::Pool { work.draft.bits } else { bits }));
        let is_share = meets_bits && work.kind == Kind::Chain;
        claim.share = is_share;
        // On regtest only shares are submitted, or a CPU's every hash were a block (SHARECHAIN §3).
        let is_block = meets(&hash, &work.network_target()) && (meets_bits || self.params.network != Network::Regtest);
        if !(is_share || is_block || meets(&hash, &target)) {
            out.mail.push((Answer::Verdict { claim, result: Err(SubmitRefusal::LowDifficulty) }, vec![ticket]));
            return false;
        }
        // Nearly every submit only counts, and then nobody needs the share.
        let share = (is_share || is_block).then(|| Arc::new(work.share(self.params, &script, bits, &roll)));
        if is_block && let Some(share) = &share {
            let (hash, height, block): (_, _, Arc<[u8]>) = (ShareId(hash), work.template.height, work.block(self.params, share).into());
            out.submit.push(SubmitJob { hash, height, block: block.clone(), own: true });
            let (conn, value, share) = (claim.conn, share.value, is_share.then(|| share.clone()));
            out.mail.push((Answer::BlockFound { hash, height, conn, share, script, value, block }, Vec::new()));
        }
        match (work.kind, share.filter(|_| is_share)) {
            (_, Some(share)) => out.organise.push(OrganiseJob::Own { share, claim, ticket }),
            (Kind::Pool, None) => match unpaid {
                None => {
                    let share = PplnsShare { script, work: work_of(&target) };
                    out.organise.push(OrganiseJob::Credit { share, claim, ticket });
                }
                Some(why) => out.mail.push((Answer::Verdict { claim, result: Err(SubmitRefusal::Refused(why)) }, vec![ticket])),
            },
            (Kind::Chain | Kind::Lottery, None) => out.mail.push((Answer::Verdict { claim, result: Ok(()) }, vec![ticket])),
        }
        is_block
    }

    fn commitment(&mut self, work: &Arc<Work>, script: &Script, bits: u32) -> [u8; 32] {
        let key = (*script, bits, work.draft.class, work.draft.layout);
        if let Some((of, commitment)) = self.commitments.get(&key)
            && std::ptr::eq(of.as_ptr(), Arc::as_ptr(work))
        {
            return *commitment;
        }
        let commitment = work.commitment(self.params, script, bits);
        if self.commitments.len() >= COMMITMENTS_MAX {
            self.commitments.clear();
        }
        self.commitments.insert(key, (Arc::downgrade(work), commitment));
        commitment
    }
}

impl Stage for EmissionWorker {
    type Job = EmissionJob;

    fn step(&mut self, now: Now, jobs: &mut Vec<EmissionJob>, out: &mut Output) {
        self.queue.extend(jobs.drain(..));
        for _ in 0..EMISSION_SLICE {
            let Some(job) = self.queue.pop_front() else { return };
            // A found block does not wait for the rest of the slice.
            if self.judge(now, job, out) {
                return;
            }
        }
    }

    fn due(&self) -> Option<Duration> {
        (!self.queue.is_empty()).then_some(Duration::ZERO)
    }
}

/// The difficulty of a hash, as miners speak of it: 1 is 0xffff × 2²⁰⁸.
fn difficulty_of(hash: &[u8; 32]) -> f64 {
    // By words: of every submit this is computed.
    let (words, _) = hash.as_chunks::<8>();
    let value = words.iter().rev().fold(0.0, |sum, word| sum * 18_446_744_073_709_551_616.0 + u64::from_le_bytes(*word) as f64);
    65_535.0 * 2f64.powi(208) / value.max(1.0)
}

/// What of a submit is outside of what its job allows, whatever its hash.
fn refuse(now: Now, template: &crate::template::Template, version: u32, ntime: u32) -> Option<SubmitRefusal> {
    if (version ^ template.version) & !VERSION_MASK != 0 {
        return Some(SubmitRefusal::BadField("version bits outside of the mask 1fffe000"));
    }
    if ntime < template.mintime {
        return Some(SubmitRefusal::BadField("ntime is before what the template allows"));
    }
    // BTC-7: beyond it the block would need other bits, and the share would be invalid.
    if ntime > template.maxtime {
        return Some(SubmitRefusal::BadField("ntime is later than the job's target allows"));
    }
    if ntime > template.curtime.max(now.unix()).saturating_add(NTIME_AHEAD_MAX_S) {
        return Some(SubmitRefusal::BadField("ntime is more than two hours ahead"));
    }
    None
}

#[cfg(test)]
mod tests {
    use rockpool_net::wire::share::{Class, Layout, Script, Share};
    use rockpool_store::chain::Chain;
    use rockpool_store::kv::MemKv;
    use rockpool_store::params::params;
    use rockpool_store::payouts::Payouts;
    use rockpool_store::rules::difficulty::hardest_bits;
    use rockpool_store::rules::share::{check_alone, check_coinbase};

    use super::*;
    use crate::embedded::EmbeddedChain;
    use crate::jobs::Fate;
    use crate::testing::{at, claim, fresh_chain, regtest, roll, script, ticket, work_of, work_on};
    use crate::work::{LOTTERY_BYTES, Work};

    /// The easiest and the hardest difficulty of a job.
    const EASY: [u8; 32] = [0xff; 32];
    const HARD: [u8; 32] = [0; 32];

    fn job(work: &Arc<Work>, roll: Roll, target: [u8; 32]) -> EmissionJob {
        let Roll { extranonce, version, ntime, nonce } = roll;
        let (work, bits) = (work.clone(), work.draft.bits);
        EmissionJob {
            claim: claim(1),
            work,
            script: script(1),
            bits,
            extranonce,
            version,
            ntime,
            nonce,
            target,
            unpaid: None,
            ticket: ticket(1),
        }
    }

    fn step(params: &'static Params, jobs: Vec<EmissionJob>) -> Output {
        let (mut worker, mut jobs, mut out) = (EmissionWorker::new(params), jobs, Output::default());
        worker.step(at(0), &mut jobs, &mut out);
        out
    }

    fn verdict(out: &Output) -> Option<Result<(), SubmitRefusal>> {
        match &out.mail[..] {
            [(Answer::Verdict { result, .. }, tickets)] if tickets.len() == 1 && out.organise.is_empty() => Some(*result),
            _ => None,
        }
    }

    fn regtest_work() -> Arc<Work> {
        work_on(&fresh_chain(), &EmbeddedChain::new(regtest(), None), at(0), script(1), 0)
    }

    #[test]
    fn a_share_goes_to_the_organiser_and_on_regtest_is_a_block() {
        for layout in [Layout::Tail, Layout::Front] {
            for class in Class::ALL {
                let bitcoin = EmbeddedChain::new(regtest(), None);
                share_and_block(&work_of((class, layout), &fresh_chain(), &bitcoin, at(0), script(1), 0));
            }
        }
    }

    fn share_and_block(work: &Arc<Work>) {
        let good = roll(work, &script(1), true);
        // A share counts whatever its job's difficulty.
        let out = step(regtest(), vec![job(work, good, HARD)]);
        let [OrganiseJob::Own { share, ticket, .. }] = &out.organise[..] else { panic!("{out:?}") };
        assert_eq!(**share, work.share(regtest(), &script(1), work.draft.bits, &good));
        assert_eq!(Share::decode(&share.encode()).as_ref(), Ok(&**share));
        assert_eq!(check_alone(regtest(), share), Ok(share.id()));
        assert_eq!(check_coinbase(regtest(), share, fresh_chain().payouts()), Ok(()));
        let [found] = &out.submit[..] else { panic!("{out:?}") };
        assert_eq!((found.hash, found.height), (share.id(), 1));
        assert!(
            matches!(&out.mail[..], [(Answer::BlockFound { hash, height: 1, .. }, tickets)] if *hash == found.hash && tickets.is_empty())
        );
        assert_eq!(ticket.conn(), claim(1).conn);
        assert_eq!(EmbeddedChain::new(regtest(), None).submit(&found.block, at(0).unix()), Fate::Accepted);
    }

    /// Harder by choice: a hash that meets only the easiest target is no share of a job that committed to a harder one.
    #[test]
    fn a_share_is_judged_by_the_bits_of_its_job() {
        let work = regtest_work();
        let hardest = hardest_bits(work.draft.bits);
        let rolls = (0..).map(|nonce| Roll { extranonce: [1; 12], version: 0x2000_0000, ntime: work.template.curtime, nonce });
        let header = |roll: &Roll| sha256d(&work.header(regtest(), &script(1), hardest, roll));
        let (mut easy, mut hard) = (0, 0);
        for roll in rolls.take(400) {
            let hash = header(&roll);
            let out = step(regtest(), vec![EmissionJob { bits: hardest, ..job(&work, roll, HARD) }]);
            if meets(&hash, &target_bytes(hardest)) {
                let [OrganiseJob::Own { share, .. }] = &out.organise[..] else { panic!("{out:?}") };
                assert_eq!((share.bits, check_alone(regtest(), share)), (hardest, Ok(ShareId(hash))));
                assert_eq!(check_coinbase(regtest(), share, fresh_chain().payouts()), Ok(()));
                hard += 1;
            } else {
                assert_eq!(verdict(&out), Some(Err(SubmitRefusal::LowDifficulty)));
                easy += u32::from(meets(&hash, &target_bytes(work.draft.bits)));
            }
        }
        assert!(hard > 0 && easy > 0, "{hard} and {easy}");
    }

    /// A worker that has seen other work, payees and bits judges as a fresh one does: the commitments that it keeps are of the very job.
    #[test]
    fn kept_commitments_are_those_of_the_job() {
        let (chain, bitcoin) = (fresh_chain(), EmbeddedChain::new(regtest(), None));
        let forms = Class::ALL.into_iter().flat_map(|class| [(class, Layout::Tail), (class, Layout::Front)]);
        let works = forms.flat_map(|form| [7, 8].map(|salt| work_of(form, &chain, &bitcoin, at(0), script(1), salt)));
        let jobs: Vec<_> =
            works.flat_map(|work| [work.draft.bits, hardest_bits(work.draft.bits)].map(|bits| (work.clone(), bits))).collect();
        let mut worker = EmissionWorker::new(regtest());
        for round in 0..3 {
            for (work, bits) in &jobs {
                let kept = worker.commitment(work, &script(1), *bits);
                assert_eq!(kept, work.commitment(regtest(), &script(1), *bits), "round {round}");
            }
        }
        assert_eq!(worker.commitments.len(), jobs.len() / 2, "newer work takes the place of older");
    }

    #[test]
    fn commitments_are_kept_up_to_a_limit() {
        let (work, mut worker) = (regtest_work(), EmissionWorker::new(regtest()));
        let (mut most, bits) = (0, work.draft.bits);
        for number in 0..=COMMITMENTS_MAX as u32 {
            let payee = Script::P2wsh(sha256d(&number.to_le_bytes()));
            assert_eq!(worker.commitment(&work, &payee, bits), work.commitment(regtest(), &payee, bits));
            most = most.max(worker.commitments.len());
        }
        assert_eq!((most, worker.commitments.len()), (COMMITMENTS_MAX, 1));
    }

    /// The genesis block's hash is known to have 2536.4 (its difficulty was 1).
    #[test]
    fn a_submit_comes_back_with_the_difficulty_of_its_hash() {
        let mut genesis: [u8; 32] = std::array::from_fn(|at| u8::from(at < 26));
        genesis[21..27].copy_from_slice(&[0x65, 0x08, 0x9c, 0x68, 0xd6, 0x19]);
        assert!((difficulty_of(&genesis) - 2_536.43).abs() < 0.01, "{}", difficulty_of(&genesis));
        assert!(difficulty_of(&[0; 32]).is_finite());
        let (work, mut seen) = (regtest_work(), Vec::new());
        for nonce in 0..50 {
            let roll = Roll { extranonce: [1; 12], version: 0x2000_0000, ntime: work.template.curtime, nonce };
            let hash = sha256d(&work.header(regtest(), &script(1), work.draft.bits, &roll));
            let out = step(regtest(), vec![job(&work, roll, EASY)]);
            let claim = match (&out.organise[..], &out.mail[..]) {
                ([OrganiseJob::Own { claim, .. }], _) | ([], [(Answer::Verdict { claim, result: Ok(()) }, _)]) => claim,
                _ => panic!("{out:?}"),
            };
            assert_eq!((claim.achieved, claim.share), (difficulty_of(&hash), meets(&hash, &target_bytes(work.draft.bits))));
            seen.push(claim.share);
        }
        assert!(seen.contains(&true) && seen.contains(&false));
    }

    #[test]
    fn what_is_no_share_is_judged_by_its_jobs_difficulty() {
        let work = regtest_work();
        let bad = roll(&work, &script(1), false);
        assert_eq!(verdict(&step(regtest(), vec![job(&work, bad, EASY)])), Some(Ok(())));
        assert_eq!(verdict(&step(regtest(), vec![job(&work, bad, HARD)])), Some(Err(SubmitRefusal::LowDifficulty)));
    }

    /// Work of main's share chain, whose floor no test reaches, on a block that is easy to find.
    #[test]
    fn a_block_that_is_no_share_is_submitted_but_on_regtest() {
        let main = params(Network::Main);
        let chain = Chain::open(main, [1, 2], &MemKv::new()).unwrap_or_else(|why| panic!("{why}")).view();
        let template = Arc::new(EmbeddedChain::new(regtest(), None).template(at(0).unix()));
        let work = Work::new(main, template, &chain.next(main, at(0)), chain.payouts(), (Class::N12, Layout::Tail), Some(script(1)), 0);
        let work = Arc::new(work.unwrap_or_else(|why| panic!("{why}")));
        let rolls = (0..).map(|nonce| Roll { extranonce: [1; 12], version: 0x2000_0000, ntime: work.template.curtime, nonce });
        let found =
            rolls.take(1_000).find(|roll| meets(&sha256d(&work.header(main, &script(1), work.draft.bits, roll)), &work.network_target()));
        let found = found.unwrap_or_else(|| panic!("every second hash is a block"));
        let out = step(main, vec![job(&work, found, HARD)]);
        assert!(out.submit.len() == 1 && out.organise.is_empty());
        assert!(matches!(&out.mail[..], [(Answer::BlockFound { .. }, none), (Answer::Verdict { result: Ok(()), .. }, one)]
            if none.is_empty() && one.len() == 1));
        // The same hash on regtest's rule: no share, no block.
        let out = step(regtest(), vec![job(&work, found, HARD)]);
        assert!(out.submit.is_empty());
    }

    #[test]
    fn fields_outside_of_what_the_job_allows_are_refused() {
        let work = regtest_work();
        let good = roll(&work, &script(1), true);
        let refused = |roll| matches!(verdict(&step(regtest(), vec![job(&work, roll, EASY)])), Some(Err(SubmitRefusal::BadField(_))));
        let latest = at(0).unix() + NTIME_AHEAD_MAX_S;
        assert!(refused(Roll { version: 0x3000_0000 ^ good.version, ..good }));
        assert!(refused(Roll { version: good.version | 1, ..good }));
        assert!(!refused(Roll { version: good.version ^ VERSION_MASK, ..good }));
        assert!(refused(Roll { ntime: work.template.mintime - 1, ..good }));
        assert!(!refused(Roll { ntime: work.template.mintime, ..good }));
        assert!(refused(Roll { ntime: latest + 1, ..good }));
        assert!(!refused(Roll { ntime: latest, ..good }));
        let mut of_another = job(&work, good, EASY);
        of_another.script = script(2);
        assert!(matches!(verdict(&step(regtest(), vec![of_another])), Some(Err(SubmitRefusal::Refused(_)))));
    }

    /// SHARECHAIN §8, end: a small device's block is a block, and pays its owner alone; none of its hashes is a share.
    #[test]
    fn a_lottery_finds_blocks_and_never_shares() {
        let chain = fresh_chain();
        for script in [script(1), Script::P2tr([3; 32]), Script::P2wsh([3; 32])] {
            let bitcoin = EmbeddedChain::new(regtest(), None);
            let template = Arc::new(bitcoin.template(at(0).unix()));
            let work = Work::lottery(regtest(), template, &chain.view().next(regtest(), at(0)), script, 7);
            let work = Arc::new(work.unwrap_or_else(|why| panic!("{why}")));
            let own = work.coinb2_own(regtest(), &script, work.draft.bits);
            assert_eq!(work.coinb1().len() + 12 + work.coinb2_shared().len() + own.len(), LOTTERY_BYTES);
            let of_ours = |roll, target| EmissionJob { script, ..job(&work, roll, target) };
            let out = step(regtest(), vec![of_ours(roll(&work, &script, true), HARD)]);
            assert!(
                matches!(&out.mail[..], [(Answer::BlockFound { share: None, .. }, none), (Answer::Verdict { result: Ok(()), .. }, one)]
                if none.is_empty() && one.len() == 1)
            );
            assert!(out.organise.is_empty(), "never a share");
            let [found] = &out.submit[..] else { panic!("{out:?}") };
            assert_eq!(bitcoin.submit(&found.block, at(0).unix()), Fate::Accepted);
            let bad = roll(&work, &script, false);
            assert_eq!(verdict(&step(regtest(), vec![of_ours(bad, EASY)])), Some(Ok(())));
            assert_eq!(verdict(&step(regtest(), vec![of_ours(bad, HARD)])), Some(Err(SubmitRefusal::LowDifficulty)));
        }
    }

    /// Each is credited with the work of its job's difficulty, whatever its hash; a block all the same is submitted first.
    #[test]
    fn an_own_pools_submits_are_credited_and_never_shares() {
        let (chain, bitcoin) = (fresh_chain(), EmbeddedChain::new(regtest(), None));
        let template = Arc::new(bitcoin.template(at(0).unix()));
        let payouts = Payouts { parent: ShareId(template.prev), parent_height: 0, weights: [(script(1), 3), (script(2), 1)].into() };
        let next = chain.view().next(regtest(), at(0));
        let work = Work::pooled(regtest(), template, &next, &payouts, (Class::N12, Layout::Tail), None, 7);
        let work = Arc::new(work.unwrap_or_else(|why| panic!("{why}")));
        let mut target = EASY;
        target[31] = 0x0f;
        let easy = |good| {
            let rolls = (0..).map(|nonce| Roll { extranonce: [1; 12], version: 0x2000_0000, ntime: work.template.curtime, nonce });
            let hash = |roll: &Roll| sha256d(&work.header(regtest(), &script(1), work.draft.bits, roll));
            rolls.take(10_000).find(|roll| meets(&hash(roll), &target) == good).unwrap_or_else(|| panic!("every sixteenth hash is one"))
        };
        let out = step(regtest(), vec![job(&work, easy(true), target)]);
        let [OrganiseJob::Credit { share, .. }] = &out.organise[..] else { panic!("{out:?}") };
        assert_eq!(*share, PplnsShare { script: script(1), work: 16 });
        let [found] = &out.submit[..] else { panic!("{out:?}") };
        assert!(matches!(&out.mail[..], [(Answer::BlockFound { share: None, .. }, none)] if none.is_empty()));
        assert_eq!(bitcoin.submit(&found.block, at(0).unix()), Fate::Accepted);
        let out = step(regtest(), vec![job(&work, roll(&work, &script(1), false), target)]);
        assert_eq!(verdict(&out), Some(Err(SubmitRefusal::LowDifficulty)));
    }

    #[test]
    fn a_found_block_does_not_wait_for_the_rest_of_the_slice() {
        let work = regtest_work();
        let (good, bad) = (roll(&work, &script(1), true), roll(&work, &script(1), false));
        let mut jobs: Vec<_> = (0..200).map(|n| job(&work, if n == 5 { good } else { bad }, EASY)).collect();
        let (mut worker, mut out) = (EmissionWorker::new(regtest()), Output::default());
        worker.step(at(0), &mut jobs, &mut out);
        assert_eq!((out.submit.len(), out.mail.len()), (1, 6));
        assert_eq!(worker.due(), Some(Duration::ZERO));
        let mut slices = Vec::new();
        while worker.due().is_some() {
            let mut out = Output::default();
            worker.step(at(0), &mut jobs, &mut out);
            slices.push(out.mail.len());
        }
        assert_eq!(slices, [EMISSION_SLICE, EMISSION_SLICE, EMISSION_SLICE, 200 - 6 - 3 * EMISSION_SLICE]);
    }
}
