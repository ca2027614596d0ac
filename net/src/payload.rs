//! Bytes to send, encoded once and shared by every outbox they wait in.

/// One encoded message or text, ready for any connection's outbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Box<[u8]>,
}

impl Payload {
    /// Bytes that go out as they are: a Stratum line with its newline, an HTTP answer, a v1 message with its header.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Payload {
        Payload { bytes: bytes.into() }
    }

    /// The bytes as they stand on the wire of a plain transport.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
