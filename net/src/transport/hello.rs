//! BIP324's handshake. Who dialled sends its key and garbage; who was dialled answers with its own, the mark that ends garbage and a
//! version packet; then the first sends its mark and version packet.
//!
//! Both sides' bytes stay in the connection's buffer until the version packet is there, since the first packet authenticates the garbage
//! before it: [`V2_HELLO_BYTES_MAX`] at most. The crate's last state borrows that garbage and cannot be kept from turn to turn. So it is
//! entered only when a packet stands behind the mark; if what stands there is a decoy and no version, the same keys are exchanged again
//! when more has come, [`V2_TRIES`] times at most, each within the turn's budget of exchanges.

use bip324::{
    FillBytes, GarbageResult, Handshake, InboundCipher, Initialized, OutboundCipher, ReceivedKey, Role, SentVersion, VersionResult,
};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use secp256k1::{Secp256k1, SignOnly};

use crate::limits::{
    V1_PREFIX_BYTES, V2_GARBAGE_OURS, V2_HELLO_BYTES_MAX, V2_KEY_BYTES, V2_LENGTH_BYTES, V2_PACKET_EXTRA, V2_SCAN_BYTES,
    V2_TERMINATOR_BYTES, V2_TRIES,
};
use crate::transport::V2Error;

/// The ciphers of a connection, in and out.
pub(super) type Ciphers = (InboundCipher, OutboundCipher);

/// One side's handshake.
pub(super) struct Hello {
    role: Role,
    /// What we drew, and once that is sent.
    ours: Option<Ours>,
    /// Our version packet is sent.
    sent: Option<Handshake<SentVersion>>,
    /// Whether the keys were exchanged once.
    exchanged: bool,
    /// Bytes behind the key without which looking again is of no use.
    wanted: usize,
    /// Bytes that were searched for the end of the garbage, and exchanges.
    scanned: usize,
    tries: u8,
}

/// What we drew.
struct Ours {
    secret: [u8; 32],
    garbage: Vec<u8>,
}

/// What the handshake makes of the bytes that are there.
pub(super) enum Step {
    /// Nothing yet; go on when there are so many.
    Need(usize),
    /// An exchange of keys is due: [`Hello::exchange`].
    Keys,
    /// Done: the ciphers, the bytes that it took, and decoys among them.
    Done(Box<Ciphers>, usize, u32),
}

/// The generator as the crate wants it, for a secret that is drawn already.
struct Drawn([u8; 32]);

impl FillBytes for Drawn {
    fn fill_bytes(&mut self, dest: &mut [u8; 32]) {
        *dest = self.0;
    }
}

impl Hello {
    pub fn new(role: Role) -> Hello {
        Hello { role, ours: None, sent: None, exchanged: false, wanted: 0, scanned: 0, tries: 0 }
    }

    /// Whether the other side's key has come and both are exchanged.
    pub fn exchanged(&self) -> bool {
        self.exchanged
    }

    /// What is to be done with all bytes of the handshake so far.
    pub fn step(&mut self, magic: [u8; 4], buf: &[u8]) -> Result<Step, V2Error> {
        if self.role == Role::Initiator {
            if self.ours.is_none() {
                return Ok(Step::Keys);
            }
            if buf.len() >= 4 && !self.exchanged && buf[..4] == magic {
                return Err(V2Error::SpeaksV1);
            }
        }
        let Some(rest) = buf.get(V2_KEY_BYTES..) else { return Ok(Step::Need(V2_KEY_BYTES)) };
        if rest.len() < self.wanted {
            return Ok(Step::Need(V2_KEY_BYTES + self.wanted));
        }
        let Some(handshake) = self.sent.take() else { return Ok(Step::Keys) };
        self.finish(handshake, rest)
    }

    /// Whether these bytes, of somebody who dialled us, begin a v1 `version` of another network.
    pub fn is_foreign_v1(&self, buf: &[u8]) -> bool {
        self.role == Role::Responder && !self.exchanged && buf.get(4..V1_PREFIX_BYTES) == Some(b"version\0\0\0\0\0")
    }

    /// What is due of the exchange: our key and garbage, and once theirs is there the mark and the version packet. Returns what is to be
    /// sent before anything else.
    pub fn exchange(&mut self, magic: [u8; 4], buf: &[u8], rng: &mut ChaCha12Rng, curve: &Secp256k1<SignOnly>) -> Result<Vec<u8>, V2Error> {
        let fresh = self.ours.is_none();
        let ours = self.ours.get_or_insert_with(|| {
            let mut secret = [0; 32];
            rng.fill_bytes(&mut secret);
            let mut garbage = vec![0; rng.next_u32() as usize % (V2_GARBAGE_OURS + 1)];
            rng.fill_bytes(&mut garbage);
            Ours { secret, garbage }
        });
        let keyed = Handshake::<Initialized>::new_with_rng(magic, self.role, &mut Drawn(ours.secret), curve).map_err(|_| V2Error::Key)?;
        let mut out = vec![0; Handshake::<Initialized>::send_key_len(Some(&ours.garbage))];
        let keyed = keyed.send_key(Some(&ours.garbage), &mut out).map_err(|_| V2Error::Key)?;
        let said = if fresh { out.len() } else { 0 };
        let Some(&theirs) = buf.first_chunk::<V2_KEY_BYTES>() else { return Ok(out) };
        let keyed = keyed.receive_key(theirs).map_err(|_| V2Error::SpeaksV1)?;
        let mut version = vec![0; Handshake::<ReceivedKey<'_>>::send_version_len(None)];
        self.sent = Some(keyed.send_version(&mut version, None).map_err(|_| V2Error::Key)?);
        out.truncate(said);
        if !std::mem::replace(&mut self.exchanged, true) {
            out.extend(version);
        }
        Ok(out)
    }

    /// Both keys are exchanged: looks for the end of the garbage and the version packet in what stands behind the key.
    fn finish(&mut self, handshake: Handshake<SentVersion>, rest: &[u8]) -> Result<Step, V2Error> {
        // The smallest packet stands behind the mark: so it is there when the mark is found.
        let Some(searched) = rest.len().checked_sub(V2_PACKET_EXTRA).filter(|len| *len >= V2_TERMINATOR_BYTES) else {
            self.sent = Some(handshake);
            return Ok(Step::Need(V2_KEY_BYTES + V2_TERMINATOR_BYTES + V2_PACKET_EXTRA));
        };
        self.scanned += searched;
        if self.scanned > V2_SCAN_BYTES {
            return Err(V2Error::Pieces);
        }
        match handshake.receive_garbage(&rest[..searched]) {
            Ok(GarbageResult::NeedMoreData(handshake)) => {
                self.sent = Some(handshake);
                Ok(Step::Need(V2_KEY_BYTES + rest.len() + 1))
            }
            Ok(GarbageResult::FoundGarbage { mut handshake, consumed_bytes }) => {
                let (mut at, mut decoys) = (consumed_bytes, 0);
                loop {
                    let Some(&length) = rest[at..].first_chunk::<V2_LENGTH_BYTES>() else { return self.wait(at + V2_LENGTH_BYTES) };
                    let bytes = handshake.decrypt_packet_len(length).map_err(|_| V2Error::Tag)?;
                    let end = at + V2_LENGTH_BYTES + bytes;
                    if V2_KEY_BYTES + end > V2_HELLO_BYTES_MAX {
                        return Err(V2Error::TooLong { bytes, cap: V2_HELLO_BYTES_MAX });
                    }
                    let Some(packet) = rest.get(at + V2_LENGTH_BYTES..end) else { return self.wait(end) };
                    match handshake.receive_version(&mut packet.to_vec()).map_err(|_| V2Error::Tag)? {
                        VersionResult::Complete { cipher } => {
                            return Ok(Step::Done(Box::new(cipher.into_split()), V2_KEY_BYTES + end, decoys));
                        }
                        VersionResult::Decoy(next) => (handshake, at, decoys) = (next, end, decoys + 1),
                    }
                }
            }
            Err(_) => Err(V2Error::Garbage),
        }
    }

    /// A packet before the version is not whole: it is looked at again from the exchange on, once it is.
    fn wait(&mut self, bytes: usize) -> Result<Step, V2Error> {
        self.tries += 1;
        if self.tries > V2_TRIES {
            return Err(V2Error::Pieces);
        }
        self.wanted = bytes;
        Ok(Step::Need(V2_KEY_BYTES + self.wanted))
    }
}
