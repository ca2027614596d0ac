//! A share chain of many payees in rows of memory.

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Script};
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::params::{Network, params};
use rockpool_store::rules::target::hash_meets;
use rockpool_store::schema;
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::work::{Roll, Work};

use crate::Outcome;

/// Payees, each of one share: more than the largest class pays.
const PAYEES: u32 = 400;
/// Newest shares that are dated ahead, fewer than move the median of times, and by how many seconds.
const AHEAD: u32 = 4;
const AHEAD_S: u32 = 460;
/// Seconds that the chain is dated ahead of now, in which nothing eases what the next share must be worth.
const LATER_S: u64 = 3_600;
/// A moment after all of it.
const LATE: Now = Now { mono: Duration::ZERO, wall: Duration::from_secs(u32::MAX as u64) };

/// Rows of a chain whose shares were cheap and whose next one is dear: the last is dated behind those before it, as far as the median of
/// times lets it be, so it leads the schedule by [`AHEAD_S`], and regtest's floor is halved 46 times. So nearly no submit makes a share,
/// as on main.
pub fn rows(now_unix: u64) -> Outcome<MemKv> {
    let (params, kv) = (params(Network::Regtest), MemKv::new());
    schema::open(&kv, params, "bench")?;
    let mut chain = Chain::open(params, [1, 2], &kv)?;
    let bitcoin = EmbeddedChain::new(params, None);
    let begin = now_unix + LATER_S;
    for number in 0..PAYEES {
        // In time, so that it stays easy.
        let steady = u64::from(number * params.interval_s);
        let wall = match PAYEES - 1 - number {
            // As early as it may be.
            0 => 0,
            1..=AHEAD => begin + steady + u64::from(AHEAD_S),
            _ => begin + steady,
        };
        let now = Now { mono: Duration::ZERO, wall: Duration::from_secs(wall) };
        let template = Arc::new(bitcoin.template(now.unix()));
        let template_time = template.curtime;
        let (view, own) = (chain.view(), payee(number));
        let work = Work::new(params, template, &view.next(params, now), view.payouts(), (Class::N12, Layout::Tail), Some(own), 0)?;
        let bits = work.draft.bits;
        let roll = |nonce| Roll { extranonce: [1; 12], version: 0x2000_0000, ntime: template_time, nonce };
        let meets = |nonce: &u32| hash_meets(&sha256d(&work.header(params, &own, bits, &roll(*nonce))), bits);
        let nonce = (0..).find(meets).ok_or("no nonce")?;
        let offer = chain.offer(LATE, &work.share(params, &own, bits, &roll(nonce)), Source::Peer);
        if offer != Offer::Taken {
            return Err(format!("share {number} was not taken: {offer:?}").into());
        }
        chain.confirm(1);
    }
    for batch in chain.take_change().ok_or("no change")?.1 {
        kv.write(&batch.ops, false)?;
    }
    Ok(kv)
}

/// Payees of both lengths.
fn payee(number: u32) -> Script {
    let program = sha256d(&number.to_le_bytes());
    if number.is_multiple_of(2) {
        return Script::P2tr(program);
    }
    let mut short = [0; 20];
    short.copy_from_slice(&program[..20]);
    Script::P2wpkh(short)
}
