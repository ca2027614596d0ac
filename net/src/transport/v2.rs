//! BIP324's packets: an encrypted length of 3 bytes · an encrypted byte of flags and the contents · a tag of 16 bytes. The contents are a
//! message's type and its payload: [`crate::frame::v1`] has both forms.

use std::fmt;

use bip324::{OutboundCipher, PacketType, Role};
use rand_chacha::ChaCha12Rng;
use secp256k1::{Secp256k1, SignOnly};

use crate::frame::v1::packet;
use crate::limits::{READ_CONN_BYTES, V2_LENGTH_BYTES, V2_PACKET_EXTRA, V2_TAG_BYTES, V2_TYPE_BYTES};
use crate::transport::hello::{Ciphers, Hello, Step};
use crate::transport::{Transport, V2Error};

/// The bit of a packet's flags that says: throw it away.
const DECOY: u8 = 0x80;

/// One v2 connection, ours in one box: a peer that says nothing costs no more than this.
pub struct V2 {
    state: State,
    /// Bytes of the unfinished packet, its length's included: a length can be decrypted once only.
    packet: usize,
    /// Packets thrown away, since this was last asked.
    decoys: u32,
}

enum State {
    Hello(Box<Hello>),
    Ready(Box<Ciphers>),
}

/// What stands at the front of a connection's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Nothing yet; go on when there are so many bytes.
    Need(usize),
    /// An exchange of keys is due.
    Keys,
    /// So many bytes say nothing.
    Skip(usize),
    /// A packet's contents, and the bytes it took.
    Packet(&'a [u8], usize),
}

impl V2 {
    /// We dialled and speak first.
    pub fn dialled() -> V2 {
        V2::new(Role::Initiator)
    }

    /// Somebody dialled us, and what he says is no v1.
    pub fn accepted() -> V2 {
        V2::new(Role::Responder)
    }

    fn new(role: Role) -> V2 {
        V2 { state: State::Hello(Box::new(Hello::new(role))), packet: 0, decoys: 0 }
    }

    /// Whether the handshake is done.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Whether the other side's key has come, so that it does speak v2.
    pub fn is_exchanged(&self) -> bool {
        match &self.state {
            State::Hello(hello) => hello.exchanged(),
            State::Ready(_) => true,
        }
    }

    /// Whether these are the first bytes of a v1 peer of another network, who dialled us.
    pub fn is_foreign_v1(&self, buf: &[u8]) -> bool {
        matches!(&self.state, State::Hello(hello) if hello.is_foreign_v1(buf))
    }

    /// The claimed length of the contents that are arriving.
    pub fn arriving(&self) -> Option<usize> {
        self.packet.checked_sub(V2_PACKET_EXTRA)
    }

    /// Decoys thrown away since this was last asked.
    pub fn take_decoys(&mut self) -> u32 {
        std::mem::take(&mut self.decoys)
    }

    /// Opens what stands at the front, in place. Contents of over `cap` bytes are refused at their length. Until bytes are used or skipped
    /// the next call must be given the same with more behind them.
    pub fn open<'a>(&mut self, magic: [u8; 4], cap: usize, buf: &'a mut [u8]) -> Result<Opened<'a>, V2Error> {
        let (inbound, _) = match &mut self.state {
            State::Ready(ciphers) => &mut **ciphers,
            State::Hello(hello) => match hello.step(magic, buf)? {
                Step::Need(bytes) => return Ok(Opened::Need(bytes)),
                Step::Keys => return Ok(Opened::Keys),
                Step::Done(ciphers, used, decoys) => {
                    self.decoys += decoys;
                    self.state = State::Ready(ciphers);
                    return Ok(Opened::Skip(used));
                }
            },
        };
        if self.packet == 0 {
            let Some(&length) = buf.first_chunk::<V2_LENGTH_BYTES>() else { return Ok(Opened::Need(V2_LENGTH_BYTES)) };
            self.packet = V2_LENGTH_BYTES + inbound.decrypt_packet_len(length);
            let bytes = self.packet - V2_PACKET_EXTRA;
            if bytes > cap {
                return Err(V2Error::TooLong { bytes, cap });
            }
        }
        let whole = self.packet;
        let Some(packet) = buf.get_mut(V2_LENGTH_BYTES..whole) else { return Ok(Opened::Need(whole)) };
        self.packet = 0;
        let (_, plain) = inbound.decrypt_in_place(packet, None).map_err(|_| V2Error::Tag)?;
        match plain {
            [flags, contents @ ..] if flags & DECOY == 0 => Ok(Opened::Packet(contents, whole)),
            _ => {
                self.decoys += 1;
                Ok(Opened::Skip(whole))
            }
        }
    }

    /// What is due of the exchange of keys, which [`Opened::Keys`] asked for. Returns what is to be sent before anything else.
    pub fn exchange(&mut self, magic: [u8; 4], buf: &[u8], rng: &mut ChaCha12Rng, curve: &Secp256k1<SignOnly>) -> Result<Vec<u8>, V2Error> {
        match &mut self.state {
            State::Hello(hello) => hello.exchange(magic, buf, rng, curve),
            State::Ready(_) => Ok(Vec::new()),
        }
    }

    /// Makes packets of v1 messages, one of each.
    fn seal(&mut self, messages: &[u8], scratch: &mut Vec<u8>) -> Vec<u8> {
        let State::Ready(ciphers) = &mut self.state else { return Vec::new() };
        let (_, outbound) = &mut **ciphers;
        // Enough for one message of whatever type, and for many whose type has a number.
        let mut wire = Vec::with_capacity(messages.len() + V2_TYPE_BYTES);
        for (name, payload) in packet::messages(messages) {
            scratch.clear();
            packet::put(scratch, name, payload);
            let at = wire.len();
            wire.resize(at + OutboundCipher::encryption_buffer_len(scratch.len()), 0);
            // The buffer is of the right size, so this cannot fail; were it not, the other side would see a packet that does not verify.
            let sealed = outbound.encrypt(scratch, &mut wire[at..], PacketType::Genuine, None);
            debug_assert_eq!(sealed, Ok(()));
        }
        if scratch.capacity() > READ_CONN_BYTES {
            *scratch = Vec::new();
        }
        wire
    }
}

impl fmt::Debug for V2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No keys.
        f.debug_struct("V2").field("ready", &self.is_ready()).field("packet", &self.packet).finish_non_exhaustive()
    }
}

impl Transport {
    /// The wire bytes of an outbox's next entry, where they are others than its own. Called once per entry, in their order, just before its
    /// first byte is written. `scratch` is anybody's, for the time of the call.
    pub fn seal(&mut self, entry: &[u8], scratch: &mut Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Transport::Plain | Transport::Undecided => None,
            Transport::V2(v2) => Some(v2.seal(entry, scratch)),
        }
    }
}

const _: () = assert!(V2_PACKET_EXTRA == V2_LENGTH_BYTES + 1 + V2_TAG_BYTES);
