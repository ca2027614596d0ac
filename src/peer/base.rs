//! Where a node without a chain begins: at a base share deep below a peer's tip (SHARECHAIN §9), of the peer whose chain has gained most
//! above its own.

use std::collections::BTreeMap;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::message::Start;
use rockpool_net::wire::share::Share;

use crate::limits::{BASE_PROBE_MAX, BASE_PROBES_MAX, SYNC_ANSWER_MAX};
use crate::peer::sync::{Claim, get_headers, spine};
use crate::turn::Turn;

/// A base share, as its peer has shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its height.
    pub height: u32,
    id: ShareId,
    /// Its score, which may be invented: what counts is what was gained above it.
    score: u128,
}

/// What peers have shown of their bases.
#[derive(Debug, Default)]
pub struct Probes {
    asked: BTreeMap<ConnId, Probe>,
    /// When the first was asked.
    since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Probe {
    Asked { height: u32, deadline: Duration },
    Shown(Base),
}

impl Base {
    /// The base of a piece of a chain that begins at this height.
    fn of(height: u32, shares: &[Share]) -> Option<Base> {
        let first = shares.get(*spine(shares)?.first()?).filter(|share| share.height == height)?;
        Some(Base { height, id: first.id(), score: first.score })
    }

    /// Whether a piece of a chain begins with it.
    pub fn begins(&self, shares: &[Share]) -> bool {
        Base::of(self.height, shares) == Some(*self)
    }

    /// What a claim has gained above it.
    fn gained(&self, claim: &Claim) -> u128 {
        claim.score.saturating_sub(self.score)
    }
}

impl Probes {
    /// Asks this peer, once. Only some are asked.
    pub fn ask(&mut self, conn: ConnId, claim: &Claim, turn: &mut Turn<'_>) {
        if self.asked.len() >= BASE_PROBES_MAX || self.asked.contains_key(&conn) {
            return;
        }
        let (now, height) = (turn.now.mono, claim.height - turn.config.params.kept);
        self.since.get_or_insert(now);
        self.asked.insert(conn, Probe::Asked { height, deadline: now + SYNC_ANSWER_MAX });
        get_headers(conn, Start::Height(height), turn);
    }

    /// An answer of this peer; `None` if it was not asked.
    pub fn on_shares(&mut self, conn: ConnId, shares: &[Share]) -> Option<Result<(), CloseReason>> {
        let probe = self.asked.get_mut(&conn)?;
        let Probe::Asked { height, .. } = *probe else { return None };
        let Some(base) = Base::of(height, shares) else {
            self.asked.remove(&conn);
            return Some(Err(CloseReason::Misbehaviour("no base share where its claim says there is one".to_owned())));
        };
        *probe = Probe::Shown(base);
        Some(Ok(()))
    }

    /// Those that have not answered.
    pub fn unanswered(self) -> impl Iterator<Item = ConnId> {
        self.asked.into_iter().filter(|(_, probe)| matches!(probe, Probe::Asked { .. })).map(|(conn, _)| conn)
    }

    /// A peer has left.
    pub fn on_closed(&mut self, conn: ConnId) {
        self.asked.remove(&conn);
        if self.asked.is_empty() {
            self.since = None;
        }
    }

    /// The peer whose claim has gained most, once all have answered or have had their time.
    pub fn best(&self, claims: &BTreeMap<ConnId, Claim>, now: Duration) -> Option<(ConnId, Claim, Base)> {
        let open = self.asked.values().any(|probe| matches!(probe, Probe::Asked { .. }));
        if open && self.since.is_some_and(|since| now < since + BASE_PROBE_MAX) {
            return None;
        }
        let shown = self.asked.iter().filter_map(|(conn, probe)| match probe {
            Probe::Shown(base) => claims.get(conn).map(|claim| (*conn, *claim, *base)),
            Probe::Asked { .. } => None,
        });
        shown.max_by_key(|(_, claim, base)| base.gained(claim))
    }

    /// When it is to be looked at again.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.since.map(|since| since + BASE_PROBE_MAX).filter(|due| now < *due)
    }

    /// A peer that was asked and has not answered in its time.
    pub fn late(&self, now: Duration) -> Option<ConnId> {
        self.asked.iter().find(|(_, probe)| matches!(probe, Probe::Asked { deadline, .. } if *deadline <= now)).map(|(conn, _)| *conn)
    }
}
