//! Exchanges of keys for v2 connections, so many a turn: who is beyond waits, and a storm of new connections does not hold up who is there.

use rand_chacha::ChaCha12Rng;

use crate::close::CloseReason;
use crate::frame::FrameError;
use crate::hub::conn::State;
use crate::hub::io::{Io, Stage};
use crate::hub::{Hub, Outlet};
use crate::id::ConnId;
use crate::limits::V2_KEYS_A_TURN;
use crate::transport::{Transport, V2Error};

impl<A> Hub<A> {
    /// Exchanges keys with those who have waited longest.
    pub(super) fn exchange(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>) {
        if self.out.keys.is_empty() {
            return;
        }
        io.stage(Stage::Frame);
        self.out.keys.begin(rng);
        let mut left = V2_KEYS_A_TURN;
        while left > 0
            && let Some(slot) = self.out.keys.next()
        {
            let Some((id, conn)) = self.out.conns.at_mut(slot).filter(|(_, conn)| conn.in_keys) else { continue };
            conn.in_keys = false;
            let Transport::V2(v2) = &mut conn.transport else { continue };
            if !matches!(conn.state, State::Open) {
                continue;
            }
            left -= 1;
            match conn.received.exchange(v2, rng, &self.curve) {
                Ok(bytes) => {
                    self.out.outbox_sums[conn.lane as usize] += bytes.len();
                    conn.outbox.push_sealed(bytes);
                    conn.uncut = conn.received.unfinished() > 0;
                    self.out.want_write(slot);
                    self.out.want_cut(id);
                }
                Err(error) => self.out.close(id, CloseReason::BadFrame(error.to_string())),
            }
        }
        if self.out.keys.is_left() {
            self.out.counters.v2_waited.add(1);
        }
    }
}

impl Outlet {
    /// Puts a connection among those who wait for an exchange of keys.
    pub(crate) fn want_keys(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.in_keys) {
            conn.in_keys = true;
            self.keys.push(id.slot);
        }
    }

    /// A connection with these keys ends: why, as judgement is told, if it is one that we dialled and whose handshake is not done. That it
    /// speaks no v2 shows in no other way than by its end.
    pub(crate) fn not_v2(&self, conn: ConnId, why: CloseReason) -> CloseReason {
        let opening =
            |conn: &&super::conn::Conn| conn.listener.is_none() && conn.transport.is_opening() && !matches!(conn.state, State::Dialling);
        if self.conns.get(conn).filter(opening).is_none() {
            return why;
        }
        let speaks_v1 = FrameError::V2(V2Error::SpeaksV1).to_string();
        match why {
            CloseReason::Remote | CloseReason::Socket(_) | CloseReason::Timeout(_) => CloseReason::NotV2(why.to_string()),
            CloseReason::BadFrame(what) if what == speaks_v1 => CloseReason::NotV2(what),
            why => why,
        }
    }
}
