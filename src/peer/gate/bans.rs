//! Whom the user does not want: addresses and subnets that are neither let in nor dialled, until their time is over. Nobody else bans; who
//! misbehaves is only discouraged.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rockpool_store::kv::Op;
use rockpool_store::limits::BANS_MAX;
use rockpool_store::peers::{Ban, Subnet, delete_ban};

/// The bans, and what of them is not on disk yet.
#[derive(Debug, Default)]
pub struct Bans {
    bans: BTreeMap<Subnet, Ban>,
    ops: Vec<Op>,
}

/// There are [`BANS_MAX`] already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Bans {
    /// Those of the rows.
    pub fn new(rows: &[Ban]) -> Bans {
        Bans { bans: rows.iter().map(|ban| (ban.of, ban.clone())).collect(), ops: Vec::new() }
    }

    /// Whether an address is banned at this time, Unix seconds. A few microseconds at most: the bans are looked through.
    pub fn is_banned(&self, ip: IpAddr, now: u32) -> bool {
        self.bans.values().any(|ban| ban.until > now && ban.of.contains(ip))
    }

    /// Adds one, in place of one of the same addresses. Those that have ended make room.
    pub fn ban(&mut self, ban: Ban, now: u32) -> Result<(), Full> {
        if !self.bans.contains_key(&ban.of) && self.bans.len() >= BANS_MAX {
            self.forget(now);
            if self.bans.len() >= BANS_MAX {
                return Err(Full);
            }
        }
        self.ops.push(ban.put());
        self.bans.insert(ban.of, ban);
        Ok(())
    }

    /// Lifts one, of exactly these addresses. Whether there was one.
    pub fn unban(&mut self, of: &Subnet) -> bool {
        let there = self.bans.remove(of).is_some();
        if there {
            self.ops.push(delete_ban(*of));
        }
        there
    }

    /// Those that hold, in the order of their addresses.
    pub fn iter(&self, now: u32) -> impl Iterator<Item = &Ban> {
        self.bans.values().filter(move |ban| ban.until > now)
    }

    /// What is to be written: changes since this was last asked.
    pub fn take(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.ops)
    }

    fn forget(&mut self, now: u32) {
        let ops = &mut self.ops;
        self.bans.retain(|of, ban| {
            let holds = ban.until > now;
            if !holds {
                ops.push(delete_ban(*of));
            }
            holds
        });
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_store::kv::{Kv, MemKv};
    use rockpool_store::peers::PeerRows;

    use super::*;

    fn ban(of: &str, until: u32) -> Ban {
        Ban { of: of.parse().unwrap(), until, why: "asked".into() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_and_a_subnet_are_banned_until_their_end() {
        let mut bans = Bans::default();
        bans.ban(ban("8.8.8.8", 100), 0).unwrap();
        bans.ban(ban("9.9.0.0/16", 200), 0).unwrap();
        bans.ban(ban("2001:db8::/32", 200), 0).unwrap();
        for (who, at, banned) in [
            ("8.8.8.8", 99, true),
            ("::ffff:8.8.8.8", 99, true),
            ("8.8.8.8", 100, false),
            ("8.8.8.9", 0, false),
            ("9.9.255.1", 199, true),
            ("9.10.0.0", 0, false),
            ("2001:db8:ffff::1", 199, true),
            ("2001:db9::1", 0, false),
        ] {
            assert_eq!(bans.is_banned(ip(who), at), banned, "{who} at {at}");
        }
        assert_eq!(bans.iter(100).count(), 2);
        assert!(bans.unban(&"9.9.0.0/16".parse().unwrap()) && !bans.unban(&"9.9.0.0/16".parse().unwrap()));
        assert!(!bans.is_banned(ip("9.9.255.1"), 0));
        // A longer one takes the place of a shorter one.
        bans.ban(ban("8.8.8.8", 500), 0).unwrap();
        assert!(bans.is_banned(ip("8.8.8.8"), 499) && bans.iter(0).count() == 2);
    }

    #[test]
    fn they_are_bounded_and_those_that_ended_make_room() {
        let mut bans = Bans::default();
        let host =
            |number: usize| Ban { of: Subnet::host(IpAddr::V4((0x0800_0000 + number as u32).into())), until: 50, why: String::new() };
        (0..BANS_MAX).for_each(|number| bans.ban(host(number), 0).unwrap());
        assert_eq!(bans.ban(ban("9.9.9.9", 90), 49), Err(Full));
        bans.ban(host(0), 49).unwrap();
        bans.ban(ban("9.9.9.9", 90), 50).unwrap();
        assert_eq!(bans.iter(0).count(), 1);
    }

    #[test]
    fn they_are_the_same_after_a_restart() {
        let (kv, mut bans) = (MemKv::new(), Bans::default());
        bans.ban(ban("8.8.8.8", 100), 0).unwrap();
        bans.ban(ban("9.9.0.0/16", 200), 0).unwrap();
        bans.unban(&"8.8.8.8".parse().unwrap());
        kv.write(&bans.take(), true).unwrap();
        assert!(bans.take().is_empty());
        let again = Bans::new(&PeerRows::open(&kv).unwrap().bans);
        assert_eq!(again.iter(0).cloned().collect::<Vec<_>>(), [ban("9.9.0.0/16", 200)]);
    }
}
