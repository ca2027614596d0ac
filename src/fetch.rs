//! Words to the fetcher, which takes one message at a time: what is said meanwhile waits here.

use rockpool_net::id::ConnId;
use rockpool_workers::jobs::FetchJob;

use crate::limits::FETCH_WAITING_MAX;

/// The line to the fetcher, with its one credit.
#[derive(Debug, Default)]
pub struct FetchLine {
    waiting: Vec<FetchJob>,
    /// Waiting words about shares; those about peers come and go in pairs and are bounded by the connections.
    about_shares: usize,
    /// A message is out and its answer not back.
    out: bool,
}

impl FetchLine {
    /// Says something. Whether it was dropped, because too much about shares waits already: the fetcher asks again by its deadlines.
    pub fn say(&mut self, job: FetchJob) -> bool {
        match job {
            FetchJob::PeerUp(_) => {}
            FetchJob::PeerDown(conn) => {
                // What it never heard of needs no taking back; and the dead are not asked.
                let before = self.waiting.len();
                self.waiting.retain(|waiting| !about(waiting, conn));
                self.about_shares -= before - self.waiting.len();
                let came = self.waiting.iter().position(|waiting| matches!(waiting, FetchJob::PeerUp(up) if *up == conn));
                if let Some(came) = came {
                    self.waiting.remove(came);
                    return false;
                }
            }
            FetchJob::Missing(..) | FetchJob::Arrived(_) | FetchJob::NotFound(..) => {
                if self.about_shares >= FETCH_WAITING_MAX {
                    return true;
                }
                self.about_shares += 1;
            }
        }
        self.waiting.push(job);
        false
    }

    /// The credit is back.
    pub fn credit(&mut self) {
        self.out = false;
    }

    /// What may go out now.
    pub fn take(&mut self) -> Vec<FetchJob> {
        if self.out || self.waiting.is_empty() {
            return Vec::new();
        }
        self.out = true;
        self.about_shares = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// Whether a word is about a share that only this peer could be asked for, or has not got.
fn about(job: &FetchJob, peer: ConnId) -> bool {
    matches!(job, FetchJob::Missing(_, conn) | FetchJob::NotFound(_, conn) if *conn == peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rockpool_net::id::ShareId;

    const PEER: ConnId = ConnId { slot: 1, generation: 1 };
    const OTHER: ConnId = ConnId { slot: 2, generation: 1 };

    #[test]
    fn one_message_is_out_at_a_time() {
        let mut line = FetchLine::default();
        assert!(line.take().is_empty());
        line.say(FetchJob::PeerUp(PEER));
        line.say(FetchJob::Missing(ShareId([1; 32]), PEER));
        assert_eq!(line.take().len(), 2);
        line.say(FetchJob::Arrived(ShareId([1; 32])));
        assert!(line.take().is_empty());
        line.credit();
        assert_eq!(line.take().len(), 1);
        line.credit();
        assert!(line.take().is_empty(), "nothing to say takes no credit");
    }

    #[test]
    fn who_came_and_went_unheard_is_not_spoken_of() {
        let mut line = FetchLine::default();
        line.say(FetchJob::PeerUp(OTHER));
        line.say(FetchJob::PeerUp(PEER));
        line.say(FetchJob::NotFound(ShareId([1; 32]), PEER));
        line.say(FetchJob::PeerDown(PEER));
        assert!(matches!(line.take()[..], [FetchJob::PeerUp(OTHER)]));
        line.say(FetchJob::Missing(ShareId([2; 32]), OTHER));
        line.say(FetchJob::PeerDown(OTHER));
        line.credit();
        assert!(matches!(line.take()[..], [FetchJob::PeerDown(OTHER)]));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut line = FetchLine::default();
        for number in 0..FETCH_WAITING_MAX {
            assert!(!line.say(FetchJob::Arrived(ShareId([number as u8; 32]))));
        }
        assert!(line.say(FetchJob::Arrived(ShareId::default())));
        assert!(!line.say(FetchJob::PeerUp(PEER)), "who is there is always told");
        assert_eq!(line.take().len(), FETCH_WAITING_MAX + 1);
        line.credit();
        assert!(!line.say(FetchJob::Arrived(ShareId::default())));
    }
}
