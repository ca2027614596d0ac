//! What the node's own miners did, where they are a pool of their own (`--standalone`): credited one after the other, told to the miners
//! once it is on the disk.

use std::collections::VecDeque;
use std::time::Duration;

use rockpool_net::hub::tickets::Ticket;
use rockpool_net::time::Now;
use rockpool_store::pplns::{Pplns, PplnsShare};

use crate::jobs::{Answer, Claim, Output, WriteJob};
use crate::limits::{CREDIT_SLICE, CREDITS_TOLD};

/// The organiser's part of an own pool. Does nothing where nothing is credited.
#[derive(Default)]
pub struct Credits {
    pplns: Pplns,
    /// Bounded by the tickets: each entry holds one.
    queue: VecDeque<(PplnsShare, Claim, Ticket)>,
    /// When the reactor was last told what each miner has.
    told: Option<Duration>,
}

impl Credits {
    /// On with this window.
    pub fn new(pplns: Pplns) -> Credits {
        Credits { pplns, ..Credits::default() }
    }

    /// A submit of one of our miners.
    pub fn push(&mut self, share: PplnsShare, claim: Claim, ticket: Ticket) {
        self.queue.push_back((share, claim, ticket));
    }

    /// Whether there is none to be credited.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Credits one slice. `wanted` is the work that the window should hold.
    pub fn step(&mut self, now: Now, wanted: u128, out: &mut Output) {
        if self.queue.is_empty() {
            return;
        }
        let mut write = WriteJob { sync: true, ..WriteJob::default() };
        for (share, claim, ticket) in self.queue.drain(..self.queue.len().min(CREDIT_SLICE)) {
            self.pplns.add_pplns_share(now.unix(), &share, wanted);
            write.claims.push(claim);
            write.tickets.push(ticket);
        }
        if self.told.is_none_or(|told| told + CREDITS_TOLD <= now.mono) {
            self.told = Some(now.mono);
            out.mail.push((Answer::Credited(self.pplns.weights().collect()), Vec::new()));
        }
        write.ops = self.pplns.take_ops();
        out.write.push(write);
    }
}

#[cfg(test)]
mod tests {
    use rockpool_net::wire::share::Script;
    use rockpool_store::kv::{Kv, MemKv};
    use rockpool_store::limits::BATCH_OPS_MAX;

    use super::*;
    use crate::testing::{at, claim, script, ticket};

    const WANTED: u128 = u128::MAX;

    fn stepped(credits: &mut Credits, ms: u64) -> Output {
        let mut out = Output::default();
        credits.step(at(ms), WANTED, &mut out);
        out
    }

    fn told(out: &Output) -> Vec<Vec<(Script, u128)>> {
        let weights =
            |(answer, _): &(Answer, Vec<Ticket>)| if let Answer::Credited(weights) = answer { Some(weights.to_vec()) } else { None };
        out.mail.iter().filter_map(weights).collect()
    }

    #[test]
    fn submits_are_credited_and_told_of_once_they_are_stored() {
        let (kv, mut credits) = (MemKv::new(), Credits::default());
        assert!(stepped(&mut credits, 0).write.is_empty());
        for n in 0..3 {
            credits.push(PplnsShare { script: script(n % 2), work: 10 + u128::from(n) }, claim(n.into()), ticket(n.into()));
        }
        let out = stepped(&mut credits, 0);
        let mut wanted = vec![(script(0), 22), (script(1), 11)];
        wanted.sort_unstable();
        assert_eq!(told(&out), [wanted.clone()]);
        let [write] = &out.write[..] else { panic!("{out:?}") };
        assert!(write.sync && write.claims.len() == 3 && write.tickets.len() == 3 && write.ids.is_empty());
        assert!(kv.write(&write.ops, write.sync).is_ok());
        let stored = Pplns::open(&kv).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(stored.weights().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_slice_fits_a_batch_and_the_reactor_is_told_now_and_then() {
        const _: () = assert!(CREDIT_SLICE <= BATCH_OPS_MAX);
        let (mut credits, mut tells) = (Credits::default(), 0);
        let ms = CREDITS_TOLD.as_millis() as u64 / 4;
        for n in 0..CREDIT_SLICE as u32 * 8 {
            credits.push(PplnsShare { script: script(1), work: 1 }, claim(n), ticket(n));
        }
        let mut steps = 0;
        while !credits.is_empty() {
            let out = stepped(&mut credits, steps * ms);
            assert!(out.write.iter().all(|write| write.claims.len() == CREDIT_SLICE && write.ops.len() == 1));
            tells += told(&out).len();
            steps += 1;
        }
        assert_eq!((steps, tells), (8, 2));
    }
}
