//! Why a connection ended. Apart from program errors: these are ordinary.

use thiserror::Error;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The other side closed it.
    #[error("closed by the other side")]
    Remote,
    /// The socket failed.
    #[error("socket error: {0}")]
    Socket(String),
    /// We dialled and nobody answered.
    #[error("dial failed: {0}")]
    Dial(String),
    /// We dialled it for v2, and its handshake did not come about: it may speak v1.
    #[error("no v2: {0}")]
    NotV2(String),
    /// The bytes are not what this kind of connection speaks.
    #[error("bad frame: {0}")]
    BadFrame(String),
    /// A message that breaks the protocol or the rules.
    #[error("misbehaviour: {0}")]
    Misbehaviour(String),
    /// A deadline passed.
    #[error("timed out: {0}")]
    Timeout(&'static str),
    /// It did not read what we sent.
    #[error("outbox full: {0} bytes unread")]
    SlowReader(usize),
    /// There is no slot for it.
    #[error("no slot free: {0}")]
    Full(&'static str),
    /// The conversation is over (an HTTP answer was sent, a self-connection, a duplicate).
    #[error("done: {0}")]
    Done(&'static str),
    /// The node stops.
    #[error("the node stops")]
    Stopping,
}

impl CloseReason {
    /// Whether the other side is to blame, as against the line, a limit of ours or an ordinary end.
    pub fn is_fault(&self) -> bool {
        matches!(self, CloseReason::BadFrame(_) | CloseReason::Misbehaviour(_))
    }
}
