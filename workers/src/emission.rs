//! Emission: judges miners' submits. What hashing there is to do, is done here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_store::params::{Network, Params};

use crate::jobs::{Answer, EmissionJob, OrganiseJob, Output, Stage, SubmitJob, SubmitRefusal};
use crate::limits::EMISSION_SLICE;
use crate::work::{NTIME_AHEAD_MAX_S, Roll, VERSION_MASK, meets};

/// Judges submits: a refusal, a pat on the back, a share, a block.
pub struct EmissionWorker {
    params: &'static Params,
    /// Bounded by the tickets: each job holds one.
    queue: VecDeque<EmissionJob>,
}

impl EmissionWorker {
    /// A worker for this network.
    pub fn new(params: &'static Params) -> EmissionWorker {
        EmissionWorker { params, queue: VecDeque::new() }
    }

    /// Judges one submit. Whether it found a block.
    fn judge(&self, now: Now, job: EmissionJob, out: &mut Output) -> bool {
        let EmissionJob { claim, work, script, extranonce, version, ntime, nonce, target, ticket } = job;
        let roll = Roll { extranonce, version, ntime, nonce };
        let refusal = refuse(now, &work.template, version, ntime).or_else(|| {
            let other = work.only_for.is_some_and(|only| only != script);
            other.then_some(SubmitRefusal::Refused("this work pays another script"))
        });
        if let Some(refusal) = refusal {
            out.mail.push((Answer::Verdict { claim, result: Err(refusal) }, vec![ticket]));
            return false;
        }
        let hash = sha256d(&work.header(self.params, &script, &roll));
        let is_share = meets(&hash, &work.share_target());
        // On regtest only shares are submitted, or a CPU's every hash were a block (SHARECHAIN §3).
        let is_block = meets(&hash, &work.network_target()) && (is_share || self.params.network != Network::Regtest);
        if !(is_share || is_block || meets(&hash, &target)) {
            out.mail.push((Answer::Verdict { claim, result: Err(SubmitRefusal::LowDifficulty) }, vec![ticket]));
            return false;
        }
        let share = Arc::new(work.share(self.params, &script, &roll));
        if is_block {
            let (hash, height) = (ShareId(hash), work.template.height);
            out.submit.push(SubmitJob { hash, height, block: work.block(self.params, &share).into() });
            out.mail.push((Answer::BlockFound { hash, height, conn: claim.conn }, Vec::new()));
        }
        if is_share {
            out.organise.push(OrganiseJob::Own { share, claim, ticket });
        } else {
            out.mail.push((Answer::Verdict { claim, result: Ok(()) }, vec![ticket]));
        }
        is_block
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

/// What of a submit is outside of what its job allows, whatever its hash.
fn refuse(now: Now, template: &crate::template::Template, version: u32, ntime: u32) -> Option<SubmitRefusal> {
    if (version ^ template.version) & !VERSION_MASK != 0 {
        return Some(SubmitRefusal::BadField("version bits outside of the mask 1fffe000"));
    }
    if ntime < template.mintime {
        return Some(SubmitRefusal::BadField("ntime is before what the template allows"));
    }
    if ntime > template.curtime.max(now.unix()).saturating_add(NTIME_AHEAD_MAX_S) {
        return Some(SubmitRefusal::BadField("ntime is more than two hours ahead"));
    }
    None
}
