//! Files that are part of the program, compressed by gzip when it was built (`build.rs`).

use std::sync::OnceLock;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::limits::PAGE_BYTES_MAX;

/// Bytes of a gzip file before its content: a head without a name (RFC 1952).
const HEAD: usize = 10;
/// And behind it: checksum and length.
const END: usize = 8;

/// A file.
#[derive(Debug)]
pub struct Packed {
    /// As it lies in the program.
    pub gzip: &'static [u8],
    plain: OnceLock<Vec<u8>>,
}

impl Packed {
    /// One by its bytes, a gzip file.
    pub const fn new(gzip: &'static [u8]) -> Packed {
        Packed { gzip, plain: OnceLock::new() }
    }

    /// As it was before: opened when first asked for, which no browser does.
    pub fn plain(&'static self) -> &'static [u8] {
        self.plain.get_or_init(|| {
            let content = &self.gzip[HEAD..self.gzip.len() - END];
            // It was compressed when the node was built; tests open each file.
            decompress_to_vec_with_limit(content, PAGE_BYTES_MAX).unwrap_or_default()
        })
    }
}

/// A file of this name among those that `build.rs` compresses.
macro_rules! packed {
    ($name:literal) => {
        $crate::http::packed::Packed::new(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")))
    };
}
pub(crate) use packed;
